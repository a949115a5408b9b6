"""Thresholds and row rules that turn probabilities into decisions, and cross-fitted scores of these decisions."""
