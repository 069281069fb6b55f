"""Prompts: templates, and a report's page as text."""
