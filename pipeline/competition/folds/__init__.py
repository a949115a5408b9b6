"""Multi-label stratified folds: groups stay whole, and the order of rows and columns does not matter."""

from pipeline.competition.folds.file import read_fold_file, split_groups
from pipeline.competition.folds.parts import cross_fitting_parts, folds_mark, group_numbers
from pipeline.competition.folds.rows import ALWAYS_TRAIN
from pipeline.competition.folds.stratify import stratified_folds
from pipeline.competition.folds.table import FEWEST_PER_FOLD, FoldTable, fold_table

__all__ = [
    "ALWAYS_TRAIN",
    "FEWEST_PER_FOLD",
    "FoldTable",
    "cross_fitting_parts",
    "fold_table",
    "folds_mark",
    "group_numbers",
    "read_fold_file",
    "split_groups",
    "stratified_folds",
]
