"""The autopilot: spends a time budget on trainings, a blend and a submission, as `run_cv.py CONFIG --autopilot 6h`."""
