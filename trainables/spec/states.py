"""The states that a trial can end in."""

from __future__ import annotations

TRIAL, BASELINE = "trial", "baseline"
STATES = ("finished", "stopped", "failed", "infeasible", "interrupted")
FINISHED, STOPPED, FAILED, INFEASIBLE, INTERRUPTED = STATES
