"""The contract with the competition, in and out: tables, labels, paths, submissions; no pixels."""
