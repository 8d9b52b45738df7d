"""What one process does: config, prompts, pixels, models, metrics; imports neither Ray nor MLflow."""
