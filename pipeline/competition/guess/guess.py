"""A guessed config with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Guess:
    """A guessed config.

    Attributes:
        config: the sections of a config file.
        reasons: the evidence, one sentence per guess.
    """

    config: dict[str, Any]
    reasons: tuple[str, ...]
