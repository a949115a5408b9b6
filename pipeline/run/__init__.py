"""Runs: folder, records, plan, cross-validation, scores."""
