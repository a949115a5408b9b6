"""The search for better training settings: an Optuna study whose trials are trainings."""
