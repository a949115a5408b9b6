"""Versions, hardware and git commit that a run was computed with."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import torch

from pipeline import processes

_PACKAGES = (
    "accelerate",
    "albumentations",
    "imagecodecs",
    "numpy",
    "opencv-python-headless",
    "optuna",
    "pandas",
    "pyarrow",
    "q2l-pipeline",
    "safetensors",
    "scikit-learn",
    "tifffile",
    "timm",
    "torch",
)


def describe_environment(*, seed: int) -> dict[str, Any]:
    """The content of `environment.json`; unknown values are null."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": joblib.cpu_count(),
        "processes": processes.count(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in _PACKAGES},
        "git_commit": _git_commit(Path(__file__).parent),
        "seed": seed,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine
        return None
    return done.stdout.strip() or None
