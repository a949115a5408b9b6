"""Predictions of trained models: test-time views, ensembles, out-of-fold logits."""
