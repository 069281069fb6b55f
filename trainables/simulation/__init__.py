"""Memory and FLOPs of a configuration from fake tensors, before it runs."""
