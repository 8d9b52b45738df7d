"""The library of synthclones: core (no cluster), stages (Ray), presets and assets."""
