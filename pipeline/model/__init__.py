"""The network: a timm backbone with a Query2Label head, and its weight files."""

from __future__ import annotations

from pipeline.model.official.checkpoint import load_official_checkpoint

__all__ = ["load_official_checkpoint"]
