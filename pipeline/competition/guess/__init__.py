"""Guesses a first config for a new competition from its tables and images."""
