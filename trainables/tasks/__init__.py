"""Tasks: data, prompts, targets, scoring; one folder per task."""
