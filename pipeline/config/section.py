"""The parts of every section of the config: a frozen base class, the mark of after keys, types of numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError


class After:
    """Marks a key, or a section with all its keys, that applies to finished folds without new training."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_text(value: Any) -> Any:
    """Numbers as text, as YAML reads -1 and 25 as numbers; texts in the Unicode form of all tables, see `read_text`."""
    if isinstance(value, str):
        return normalize("NFC", value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_as_text)]
# The bounds are far beyond any use: a slip of the keyboard is an error here, and not a lack of memory hours later.
MOST = 1_000_000_000
PositiveInt = Annotated[int, Field(gt=0, le=MOST)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Pixels = Annotated[int, Field(gt=0, le=16_384)]
NonNegative = Annotated[float, Field(ge=0, le=1e30)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
Gamma = Annotated[float, Field(ge=0, le=1000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Duration = Annotated[str, Field(min_length=2, pattern=r"^(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?$")]  # 8h30m
BelowOne = Annotated[float, Field(ge=0, lt=1)]


def seconds_of(duration: str) -> float:
    """The seconds of a duration such as 8h30m, 45m or 90s."""
    numbers = re.findall(r"(\d+)([hms])", duration)
    return float(sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in numbers))


def _number_or_per_label(kind: Any, wanted: str) -> Callable[[Any], float | dict[str, float]]:
    """A validator with one message; for a plain union pydantic reports each mistake once per member."""
    number = TypeAdapter(kind)

    def check(value: Any) -> float | dict[str, float]:
        try:
            if isinstance(value, Mapping) and value:
                return {str(label): float(number.validate_python(one)) for label, one in value.items()}
            return float(number.validate_python(value))
        except ValidationError:
            raise ValueError(f"expected {wanted}, or a mapping from every label to such a number") from None

    return check


PerLabelNonNegative = Annotated[
    float | dict[str, float], PlainValidator(_number_or_per_label(Gamma, "a number from 0 to 1000"))
]
PerLabelBelowOne = Annotated[
    float | dict[str, float], PlainValidator(_number_or_per_label(BelowOne, "a number from 0 up to, not including, 1"))
]
