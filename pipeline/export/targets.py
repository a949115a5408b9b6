"""The machines of code competitions: their Python, and the packages that they have and prediction can use."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """A machine without internet.

    Attributes:
        python: its version, for wheels; None: the version that makes the bundle.
        data, out: where the competition's files are, and where the submission goes.
        packages: names of packages that it has, with what they need.
    """

    python: str | None
    data: str
    out: str
    packages: frozenset[str]


_KAGGLE = """
filelock flatbuffers joblib numpy onnx opencv-python-headless packaging pandas pillow protobuf psutil pyarrow pydantic
pyyaml rich safetensors scikit-learn scipy sympy tifffile timm torch torchvision
"""  # of installed_cpu_packages.txt in github.com/Kaggle/docker-python, read in November 2026
TARGETS = {
    "kaggle": Target(
        "3.12",
        "/kaggle/input",
        "submission.csv",
        frozenset(_KAGGLE.split()),
    ),
    # Its server installs requirements.txt before it cuts the network; images differ between competitions.
    "dacon": Target(None, "data", "output/submission.csv", frozenset(("torch", "torchvision"))),
    "folder": Target(None, ".", "submission.csv", frozenset()),
}
TRAINING_ONLY = frozenset(
    ("accelerate", "albumentations", "iterative-stratification", "jinja2", "matplotlib", "optuna")
)
ENGINE_PACKAGES = {"torch": (), "onnxruntime": ("onnxruntime",), "openvino": ("openvino",)}
