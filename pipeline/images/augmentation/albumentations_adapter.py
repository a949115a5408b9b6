"""Builds albumentations objects from the config; no other module imports albumentations."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pipeline.errors import ConfigError, listing, nearest
from pipeline.images.geometry import Size

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise its import asks the package index for a newer version
import albumentations as A

Spec: TypeAlias = Mapping[str, Mapping[str, Any] | None]

_COMPOSITIONS = {
    "OneOf": A.OneOf,
    "OneOrOther": A.OneOrOther,
    "RandomOrder": A.RandomOrder,
    "SelectiveChannelTransform": A.SelectiveChannelTransform,
    "Sequential": A.Sequential,
    "SomeOf": A.SomeOf,
}
_BASES = {A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D}
TRANSFORMS = {
    name: kind
    for name, kind in vars(A).items()
    if isinstance(kind, type) and issubclass(kind, A.BasicTransform) and kind not in _BASES
}


class FrameCrop(A.RandomResizedCrop):  # type: ignore[misc]
    """RandomResizedCrop that draws its box in a frame (H, W) and cuts the same part from an image of any size.

    `ratio` is that of the box in the frame. So an image need not be resized to the frame before the crop; an image of
    the frame's size is cut as RandomResizedCrop cuts it.
    """

    frame: Size

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Called by albumentations: the box (left, top, right, bottom) in pixels of the image."""
        drawn = super().get_params_dependent_on_data({**params, "shape": self.frame}, data)
        height, width = params["shape"][:2]
        left, top, right, bottom = drawn["crop_coords"]
        rows = _scaled(top, bottom, height / self.frame[0])
        columns = _scaled(left, right, width / self.frame[1])
        return {"crop_coords": (columns[0], rows[0], columns[1], rows[1])}


def _scaled(start: int, end: int, factor: float) -> tuple[int, int]:
    """A range of pixels on an axis that is `factor` times as long; at least one pixel."""
    first, last = round(start * factor), round(end * factor)
    return (first, last) if last > first else (min(first, max(0, last - 1)), max(1, last))


def compose(specs: Sequence[Spec], *, frame: Size) -> Any:
    """The `albumentations.Compose` of `specs`; a RandomResizedCrop at the beginning draws its box in `frame`.

    Raises:
        ConfigError: an unknown name, a wrong argument or value.
    """
    built = [build(spec) for spec in specs]
    if built and type(built[0]) is A.RandomResizedCrop:
        name, arguments = split(specs[0])
        built[0] = _instance(name, FrameCrop, arguments | _strictness(FrameCrop))
        built[0].frame = frame
    return A.Compose(built)


def is_composition(transform: Any) -> bool:
    """Whether `transform` has further transforms, in its attribute `transforms`."""
    return isinstance(transform, A.BaseCompose)


def build(spec: Spec) -> Any:
    """The albumentations object of one spec."""
    name, arguments = split(spec)
    if name in _COMPOSITIONS:
        return _instance(name, _COMPOSITIONS[name], _composition_arguments(name, arguments))
    if name in TRANSFORMS:
        return _instance(name, TRANSFORMS[name], arguments | _strictness(TRANSFORMS[name]))
    raise ConfigError(
        f"unknown augmentation '{name}'{nearest(name, [*TRANSFORMS, *_COMPOSITIONS])}",
        expected="the name of a transform of albumentations 2.0.8, in its spelling",
        got=name,
        remedy="correct the name",
    )


def split(spec: Spec) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a spec. Raises ConfigError for anything but one name with its arguments."""
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, arguments),) = spec.items()
        if isinstance(name, str) and (arguments is None or isinstance(arguments, Mapping)):
            return name, dict(arguments or {})
    raise ConfigError(
        "an augmentation is written as one name with its arguments",
        expected="a mapping like {HorizontalFlip: {p: 0.5}}",
        got=repr(spec),
        remedy="give each augmentation its own list item; check the indentation",
    )


def _composition_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` with the nested specs built, and with p checked: albumentations does not check it here."""
    specs, p = arguments.get("transforms"), arguments.get("p", 1.0)
    if not isinstance(specs, Sequence) or isinstance(specs, str) or not specs:
        raise _wrong_arguments(name, _COMPOSITIONS[name], f"transforms = {specs!r}")
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise _wrong_arguments(name, _COMPOSITIONS[name], f"p = {p!r}, which is no probability")
    return arguments | {"transforms": [build(spec) for spec in specs]}


def _strictness(kind: type) -> dict[str, bool]:
    """`strict=True` where the transform has it: without it an unknown argument only causes a warning."""
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    return {"strict": True} if "InitSchema" in vars(owner) else {}


def _instance(name: str, kind: type, arguments: dict[str, Any]) -> Any:
    try:
        return kind(**arguments)
    except Exception as error:  # any error of a constructor is a mistake in the config
        raise _wrong_arguments(name, kind, one_line(error)) from error


def _wrong_arguments(name: str, kind: type, got: str) -> ConfigError:
    parameters = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]  # type: ignore[misc]
    return ConfigError(
        f"wrong arguments for augmentation {name}",
        expected=f"{name}({listing(parameters, limit=30)})",
        got=got,
        remedy=f"correct them; albumentations 2.0.8 documents {name}",
    )


def one_line(error: Exception) -> str:
    """The error's message in one line, without links to pydantic's pages."""
    return " ".join(re.sub(r"For further information visit \S+", "", str(error)).split())
