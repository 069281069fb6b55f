"""Tasks on a user's own files: rows, columns, splits, prompts, labels."""
