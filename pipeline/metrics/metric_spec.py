"""The metric of a config as a name and options; a shorthand name such as f2_macro contains options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import MetricConfig, as_metric_config
from pipeline.errors import ConfigError, listing, nearest
from pipeline.metrics.custom_metric import custom_function

Options = dict[str, Any]

_F_NAME = re.compile(r"f(\d{1,3}(?:\.\d{1,9})?)_(macro|micro|samples|weighted)")
_MAP_NAME = re.compile(r"map@([1-9]\d{0,8})")


def metric_name(spec: str | MetricConfig) -> str:
    """Name of a metric in tables and files, options included: `auc_macro (labels: a b)`."""
    config = as_metric_config(spec)
    if config.function is not None:
        return str(custom_function(config.function))
    name, options = name_and_options(config)
    if name == "fbeta":
        name = f"f{options.pop('beta', 1.0):g}_{options.pop('average', 'macro')}"
    elif name == "map@k" and "k" in options:
        name = f"map@{options.pop('k')}"
    shown = [f"{key}: {_option_text(value)}" for key, value in options.items()]
    return f"{name} ({', '.join(shown)})" if shown else name


def _option_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={one:g}" for key, one in value.items())
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def name_and_options(config: MetricConfig) -> tuple[str, Options]:
    """The name of the metric's family, and the options given, those of a shorthand name included."""
    options = config.model_dump(exclude_none=True)
    name = str(options.pop("name"))
    short: Options = {}
    if match := _F_NAME.fullmatch(name):
        name, short = "fbeta", {"beta": _above_zero(float(match[1])), "average": match[2]}
    elif match := _MAP_NAME.fullmatch(name):
        name, short = "map@k", {"k": int(match[1])}
    for key, value in short.items():
        if options.setdefault(key, value) != value:
            raise ConfigError(
                f"competition.metric: {config.name} sets {key} to {value}, the option {key} to {options[key]}",
                remedy=f"leave the option {key} out",
            )
    return name, options


def with_indices(options: Options, labels: Sequence[str]) -> Options:
    """Options as metric functions take them: `labels` become `columns`, `weights` become a tuple of K numbers."""
    named = [*options.get("labels", ()), *options.get("weights", ())]
    unknown = [name for name in named if name not in labels]
    if unknown:
        raise ConfigError(
            f"competition.metric: there is no label '{unknown[0]}'{nearest(unknown[0], labels)}",
            expected=listing(labels, 12),
            remedy="name labels as the training table does",
        )
    options = dict(options)
    if "labels" in options:
        options["columns"] = tuple(labels.index(name) for name in dict.fromkeys(options.pop("labels")))
    if "weights" in options:
        given = options["weights"]
        options["weights"] = tuple(float(given.get(name, 1.0)) for name in labels)
    return options


def _above_zero(beta: float) -> float:
    if beta > 0:
        return beta
    raise ConfigError("competition.metric: beta must be above 0", remedy="write f1_macro, f2_macro or f0.5_macro")
