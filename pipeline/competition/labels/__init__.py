"""Label formats: the organisers' cells or files to and from targets (N, K). One module per format."""

from pipeline.competition.labels.cells import CellRules
from pipeline.competition.labels.class_files import encode_per_class, encode_voc
from pipeline.competition.labels.coco import encode_coco
from pipeline.competition.labels.delimited import (
    decode_delimited,
    encode_delimited,
    encode_list,
    label_names,
    parse_list,
    split_names,
)
from pipeline.competition.labels.long import encode_long
from pipeline.competition.labels.long_keys import find_suffixes, split_keys
from pipeline.competition.labels.reading import RESERVED_LABELS, read_labels
from pipeline.competition.labels.rows import LabelledRows, Targets
from pipeline.competition.labels.wide import decode_wide, encode_wide

__all__ = [
    "RESERVED_LABELS",
    "CellRules",
    "LabelledRows",
    "Targets",
    "decode_delimited",
    "decode_wide",
    "encode_coco",
    "encode_delimited",
    "encode_list",
    "encode_long",
    "encode_per_class",
    "encode_voc",
    "encode_wide",
    "find_suffixes",
    "label_names",
    "parse_list",
    "read_labels",
    "split_keys",
    "split_names",
]
