"""`python -m orchestrator.doctor`: is this cluster fit for sweeps?"""
