"""The report of a run as one HTML file: `python -m pipeline report RUN`."""
