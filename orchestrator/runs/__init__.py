"""The state of a sweep on disk: ledger, lease, results, progress."""
