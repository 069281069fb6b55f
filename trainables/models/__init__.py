"""Base models: files, hub cache, loading, quantization, devices."""
