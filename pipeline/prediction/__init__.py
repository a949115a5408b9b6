"""From trained folds and images to predictions: test-time views, ensembles, one decode per image."""
