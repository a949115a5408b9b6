"""Exact and numerical searches for thresholds."""
