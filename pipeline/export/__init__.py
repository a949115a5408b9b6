"""Trained runs for other machines: exported networks, and bundles for code competitions."""
