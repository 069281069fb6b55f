"""Retrieval: the units of pages and documents that a question's prompt shows."""
