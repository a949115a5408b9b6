"""Augmentation lists with names, made of transforms that a config could also list itself."""

from __future__ import annotations

from typing import Any

# Their costs on a 448 px image differ by two orders of magnitude; `light` has the cheap ones only.
_CROP: dict[str, Any] = {"RandomResizedCrop": {"scale": [0.6, 1.0], "ratio": [0.8, 1.25], "p": 1.0}}
_FLIP: dict[str, Any] = {"HorizontalFlip": {"p": 0.5}}
_LIGHTING: dict[str, Any] = {"RandomBrightnessContrast": {"brightness_limit": 0.2, "contrast_limit": 0.2, "p": 0.5}}
_AFFINE: dict[str, Any] = {
    "Affine": {"scale": [0.8, 1.2], "translate_percent": [-0.1, 0.1], "rotate": [-15, 15], "p": 0.7}
}
_COLOUR: dict[str, Any] = {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.0, "p": 0.5}}
_HOLES: dict[str, Any] = {
    "CoarseDropout": {
        "num_holes_range": [1, 4],
        "hole_height_range": [0.1, 0.25],
        "hole_width_range": [0.1, 0.25],
        "p": 0.5,
    }
}
_BLUR_OR_NOISE: dict[str, Any] = {
    "OneOf": {"transforms": [{"GaussianBlur": {"p": 1.0}}, {"GaussNoise": {"p": 1.0}}], "p": 0.2}
}

PRESETS: dict[str, list[dict[str, Any]]] = {
    "light": [_CROP, _FLIP, _LIGHTING],
    "medium": [_FLIP, _AFFINE, _COLOUR, _HOLES],
    "heavy": [_CROP, _FLIP, _AFFINE, _COLOUR, _BLUR_OR_NOISE, _HOLES],
}


def preset(name: str, *, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The list called `name` (`light`, `medium`, `heavy`) for images of `size` (H, W)."""
    return [
        {kind: {**arguments, "size": list(size)} if kind == "RandomResizedCrop" else arguments}
        for spec in PRESETS[name]
        for kind, arguments in spec.items()
    ]
