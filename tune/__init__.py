"""Searches over recipes and training settings with Ray Tune."""
