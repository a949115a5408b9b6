"""Label formats: the organisers' cells or files to and from targets (N, K). One module per format."""

from pipeline.competition.labels.delimited import split_names
from pipeline.competition.labels.long_keys import find_suffixes, split_keys
from pipeline.competition.labels.reading import read_labels
from pipeline.competition.labels.rows import LabelledRows, Targets

__all__ = [
    "LabelledRows",
    "Targets",
    "find_suffixes",
    "read_labels",
    "split_keys",
    "split_names",
]
