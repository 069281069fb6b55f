"""`python -m orchestrator.decode`: other decoding strategies on trials that have finished."""
