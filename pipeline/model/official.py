"""Checkpoints of the official Query2Label code (github.com/SlongLiu/query2labels), read into our model."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models.swin_transformer import checkpoint_filter_fn as to_timm_swin
from timm.models.tresnet import checkpoint_filter_fn as to_timm_tresnet
from torch import Tensor, nn

from pipeline.errors import ConfigError, listing
from pipeline.model.backbone import build_backbone
from pipeline.model.loading import LoadReport, load_for_labels
from pipeline.model.query2label import _SELF_ATTENTION, Query2Label, SelfAttention
