"""The organisers' files, read and written: tables, labels, groups, image paths, folds, submissions; no pixels."""
