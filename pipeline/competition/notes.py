"""What a person should know about the tables: sentences, told while the files are read."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], None]
"""Hears one sentence on something that was guessed, skipped or changed."""


def tell_nobody(_sentence: str) -> None:
    """For a caller who heard the sentences when he read the same files before."""
