"""Memory, FLOPs and system metrics, measured and estimated."""
