"""Metrics of decisions and of probabilities, in numpy alone, and how sure their values are."""
