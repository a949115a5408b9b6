"""What is wrong with a competition's data, found before anything is trained: `run_cv.py CONFIG --check`."""
