"""Metrics that a task on own data chooses from: of texts and of labels."""
