"""The complete, frozen schema of a run: `load_config(path, overrides) -> Config`.

A config file is a short YAML diff over the schema's defaults; `configs/base.yaml` lists all of them. Training keys
change the weights: a run folder with other training keys is refused. After keys apply to finished folds without new
training.
"""

from pipeline.config.after import PredictConfig, SubmissionConfig, ThresholdsConfig
from pipeline.config.competition import CompetitionConfig
from pipeline.config.folds import (
    FoldsConfig,
    GroupChunks,
    GroupColumn,
    GroupFile,
    GroupImages,
    GroupPattern,
    GroupSource,
)
from pipeline.config.images import ImageFiles, ImagesConfig
from pipeline.config.labels import (
    LABEL_FORMATS,
    CocoLabels,
    ColumnsLabels,
    DelimitedLabels,
    Labels,
    LongLabels,
    NamesFile,
    PerClassLabels,
    PolicyByLabel,
    VocLabels,
    WideLabels,
)
from pipeline.config.metric import MetricConfig, MetricSpec, as_metric_config
from pipeline.config.reading import check_config, dump_config, load_config
from pipeline.config.schema import (
    Config,
    applies_after,
    changed_keys,
    changed_training_keys,
    training_values,
    unused_keys,
)
from pipeline.config.search import Dimension, SearchConfig, full_key, is_integer, kept_keys, searchable_keys
from pipeline.config.section import seconds_of
from pipeline.config.training import AugmentConfig, LossConfig, MixConfig, ModelConfig, TrainConfig
from pipeline.config.yaml_text import parse_yaml

__all__ = [
    "LABEL_FORMATS",
    "AugmentConfig",
    "CocoLabels",
    "ColumnsLabels",
    "CompetitionConfig",
    "Config",
    "DelimitedLabels",
    "Dimension",
    "FoldsConfig",
    "GroupChunks",
    "GroupColumn",
    "GroupFile",
    "GroupImages",
    "GroupPattern",
    "GroupSource",
    "ImageFiles",
    "ImagesConfig",
    "Labels",
    "LongLabels",
    "LossConfig",
    "MetricConfig",
    "MetricSpec",
    "MixConfig",
    "ModelConfig",
    "NamesFile",
    "PerClassLabels",
    "PolicyByLabel",
    "PredictConfig",
    "SearchConfig",
    "SubmissionConfig",
    "ThresholdsConfig",
    "TrainConfig",
    "VocLabels",
    "WideLabels",
    "applies_after",
    "as_metric_config",
    "changed_keys",
    "changed_training_keys",
    "check_config",
    "dump_config",
    "full_key",
    "is_integer",
    "kept_keys",
    "load_config",
    "parse_yaml",
    "searchable_keys",
    "seconds_of",
    "training_values",
    "unused_keys",
]
