"""The check of a competition's tables and images before training: `python -m pipeline check CONFIG`."""
