"""Retrieval: the sentences and table rows of reports that a question's prompt shows."""
