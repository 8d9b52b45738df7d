"""What a cluster does: Ray graphs and worker code, one module per stage."""
