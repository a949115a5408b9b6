"""The section of the autopilot: the arms that it compares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from pipeline.config.section import Section
from pipeline.errors import repeated_names


def _with_plain_names(arms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [arm.get("name") for arm in arms]
    if not all(isinstance(name, str) and name.isidentifier() and name not in ("autopilot", "debug") for name in names):
        raise ValueError("each arm needs a name of letters, digits and _, as in {name: wide, model.hidden_dim: 512}")
    if repeated := repeated_names(map(str, names)):
        raise ValueError(f"'{repeated[0]}' occurs twice")
    return arms


class AutopilotConfig(Section):
    """The arms of `run_cv.py CONFIG --autopilot`; each is a name with the config keys that it changes."""

    arms: Annotated[list[dict[str, Any]], AfterValidator(_with_plain_names)] = []
