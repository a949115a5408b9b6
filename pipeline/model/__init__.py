"""The network: a timm backbone, Query2Label on top of it, and what goes in and out of weight files."""

from __future__ import annotations

from pipeline.model.official.checkpoint import load_official_checkpoint

__all__ = ["load_official_checkpoint"]
