"""What predictions are worth: metrics, the thresholds that decide, and scores that are honest about both."""
