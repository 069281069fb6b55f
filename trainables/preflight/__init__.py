"""The preflight: what would fail in every trial, found once and before any is launched."""
