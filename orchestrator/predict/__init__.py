"""`python -m orchestrator.predict`: ask trained models side by side."""
