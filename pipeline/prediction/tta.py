"""Test-time views: the image is turned, mirrored or resized before prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.errors import ConfigError, nearest, repeated_names


class View(NamedTuple):
    """A transformation of images before prediction.

    Attributes:
        name: as in `predict.tta`.
        size: (height, width) in pixels to which the file is fitted.
        apply: uint8 (B, C, H, W) to uint8 (B, C, H', W').
    """

    name: str
    size: tuple[int, int]
    apply: Callable[[Tensor], Tensor]


def _same(images: Tensor) -> Tensor:
    return images


def _mirror(images: Tensor) -> Tensor:
    return images.flip(3)


def _upside_down(images: Tensor) -> Tensor:
    return images.flip(2)


def _quarter_turn(images: Tensor) -> Tensor:
    return torch.rot90(images, 1, (2, 3))


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": _same,
    "hflip": _mirror,
    "vflip": _upside_down,
    "rot90": _quarter_turn,
}

_SIZE = re.compile(r"size:(\d{1,4})(?:x(\d{1,4}))?")


def parse_views(names: Sequence[str], *, size: tuple[int, int]) -> tuple[View, ...]:
    """The views with these names, for a model trained at `size`.

    `identity`, `hflip`, `vflip` and `rot90` (a quarter turn) have the training size; `size:448` and
    `size:448x320` (height x width) fit the file to another size.

    Raises:
        ConfigError: an unknown or repeated name.
    """
    repeated = repeated_names(names)
    if not names or repeated:
        raise ConfigError(
            f"predict.tta: {'no view is named' if not names else f'{repeated[0]} is named twice'}",
            remedy="name each view once, for example [identity, hflip]",
        )
    return tuple(_parse(name, size) for name in names)


def _parse(name: str, size: tuple[int, int]) -> View:
    if name in VIEWS:
        return View(name, size, VIEWS[name])
    match = _SIZE.fullmatch(name)
    if match is None or int(match[1]) == 0 or match[2] == "0":
        raise ConfigError(
            f"predict.tta: unknown view '{name}'{nearest(name, VIEWS)}",
            expected=f"one of {', '.join(VIEWS)}, or a size such as size:448 or size:448x320",
            remedy="correct predict.tta or --tta",
        )
    height = int(match[1])
    return View(name, (height, int(match[2] or height)), _same)
