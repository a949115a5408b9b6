"""Checkpoints of the official Query2Label code."""
