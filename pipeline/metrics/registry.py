"""All metrics by name: builds the `Metric` that a config names.

The functions in `decision_metrics.py` and `ranking_metrics.py` document what each metric does with a label without
positives, an empty row, ties and unknown cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import MetricConfig, as_metric_config
from pipeline.errors import ConfigError, nearest
from pipeline.metrics import decision_metrics, ranking_metrics
from pipeline.metrics.counts import (
    Counts,
    Unit,
    Value,
    accuracy,
    error_rate,
    exact_match,
    f_beta,
    has_both,
    has_positives,
    matthews,
)
from pipeline.metrics.custom_metric import custom_function
from pipeline.metrics.means import MetricValue
from pipeline.metrics.metric_spec import Options, metric_name, name_and_options, with_indices
from pipeline.metrics.targets import Targets

Takes = Literal["decisions", "probabilities"]
Function = Callable[[Targets, NDArray[Any]], MetricValue]
_PATTERNS = "f<beta>_<macro|micro|samples|weighted>, map@<k>, FILE.py:FUNCTION"


class Criterion(NamedTuple):
    """A decision metric as the mean of `value` over units, which a sweep over thresholds can follow."""

    unit: Unit
    value: Value
    per_label: Value  # of one label alone; greater is better if it is for the metric
    defined: Callable[[Counts], NDArray[np.bool_]] = has_positives  # mask of the labels in a mean over labels


@dataclass(frozen=True)
class Metric:
    """A metric, ready to be computed; it can be pickled.

    `function(targets, values)` takes targets (N, K), see `split_targets`, and values (N, K): decisions 0/1 or
    probabilities in [0, 1], see `takes`. It raises ValueError for anything else.
    """

    name: str
    takes: Takes
    greater_is_better: bool
    function: Function
    criterion: Criterion | None = None  # None if no sweep follows the metric exactly


def get_metric(spec: str | MetricConfig, labels: Sequence[str] = (), *, custom_functions: bool = False) -> Metric:
    """Builds the metric that `spec` describes.

    Args:
        spec: a name (`f1_macro`, `f0.5_samples`, `map@3`, ...), FILE.py:FUNCTION, or a metric with options.
        labels: the names of the K labels, which the options `labels` and `weights` refer to.
        custom_functions: allows a custom metric, whose file is then run. Only for a spec from the user's own
            config: a run folder may come from a stranger.

    Raises:
        ConfigError: the metric, an option or a label is unknown; a custom metric cannot be loaded or is not allowed.
    """
    config = as_metric_config(spec)
    if config.function is not None:
        return _custom_metric(config, allowed=custom_functions)
    name, options = name_and_options(config)
    if name not in _FAMILIES:
        raise ConfigError(
            f"unknown metric '{config.name}'{nearest(str(config.name), METRICS)}",
            remedy=f"choose one of {', '.join(METRICS)}, {_PATTERNS}",
        )
    family = _FAMILIES[name]
    unknown = sorted(set(options) - set(family.options))
    if unknown:
        raise ConfigError(
            f"competition.metric: {name} has no option '{unknown[0]}'",
            expected=f"of the options only {', '.join(family.options)}" if family.options else "no options",
            remedy="leave it out, or choose another metric",
        )
    return family.build(metric_name(config), with_indices(options, labels))


def metric_input(spec: str | MetricConfig, labels: Sequence[str] = ()) -> Takes:
    """Whether the metric takes decisions or probabilities; the file of a custom metric is not run.

    Raises ConfigError as `get_metric`.
    """
    config = as_metric_config(spec)
    return get_metric(config, labels).takes if config.function is None else config.takes or "probabilities"


def _custom_metric(config: MetricConfig, *, allowed: bool) -> Metric:
    assert config.function is not None
    unknown = set(config.model_dump(exclude_none=True)) - {"function", "takes", "greater_is_better"}
    if unknown:
        raise ConfigError(
            f"competition.metric: a custom metric has no option '{min(unknown)}'",
            expected="of the options only takes, greater_is_better",
            remedy="leave it out",
        )
    if not allowed:
        raise ConfigError(
            f"the metric {config.function} is a custom metric, which is not run from a run folder",
            remedy="use run_cv.py with the config that names it; the stored scores of a single run do not need it",
        )
    function = custom_function(config.function)
    function.load()
    better = config.greater_is_better is not False
    return Metric(str(function), metric_input(config), better, function)


class _Family(NamedTuple):
    """Metrics that differ only in their options."""

    options: tuple[str, ...]
    build: Callable[[str, Options], Metric]


def _build_f(name: str, options: Options) -> Metric:
    average, beta = options.pop("average", "macro"), options.pop("beta", 1.0)
    allowed = {"macro": {"columns"}, "weighted": {"columns"}, "samples": {"empty"}, "micro": set[str]()}[average]
    if set(options) - allowed:
        raise ConfigError(
            f"competition.metric: {name}: the options labels and empty do not fit the average {average}",
            expected="labels with macro and weighted, empty with samples",
            remedy="leave it out, or choose another average",
        )
    functions = {
        "macro": decision_metrics.f_macro,
        "micro": decision_metrics.f_micro,
        "samples": decision_metrics.f_samples,
        "weighted": decision_metrics.f_weighted,
    }
    units: dict[str, Unit] = {"macro": "label", "micro": "table", "samples": "row"}
    value = partial(f_beta, beta=beta)
    criterion = None
    if average in units and "columns" not in options:
        with_empty = partial(value, empty=options["empty"]) if options.get("empty") else value
        criterion = Criterion(units[average], with_empty, per_label=value)
    return Metric(name, "decisions", True, partial(functions[average], beta=beta, **options), criterion)


def _build_map_at_k(name: str, options: Options) -> Metric:
    if "k" not in options:
        raise ConfigError("competition.metric: map@k needs k", remedy="write map@3, or {name: map@k, k: 3}")
    return Metric(name, "probabilities", True, partial(ranking_metrics.map_at_k, **options))


def _of_decisions(
    function: Callable[..., MetricValue], criterion: Criterion, *options: str, greater: bool = True
) -> _Family:
    def build(name: str, given: Options) -> Metric:
        exact = None if "columns" in given else criterion
        return Metric(name, "decisions", greater, partial(function, **given), exact)

    return _Family(options, build)


def _of_probabilities(function: Callable[..., MetricValue], *options: str, greater: bool = True) -> _Family:
    return _Family(options, lambda name, given: Metric(name, "probabilities", greater, partial(function, **given)))


_CELLS = Criterion("table", accuracy, per_label=accuracy)
_FAMILIES: dict[str, _Family] = {
    "fbeta": _Family(("average", "beta", "labels", "empty"), _build_f),
    "accuracy_cells": _of_decisions(decision_metrics.accuracy_cells, _CELLS),
    "accuracy_subset": _of_decisions(
        decision_metrics.accuracy_subset, Criterion("row", exact_match, per_label=accuracy)
    ),
    "hamming": _of_decisions(
        decision_metrics.hamming, Criterion("table", error_rate, per_label=error_rate), greater=False
    ),
    "mcc_macro": _of_decisions(
        decision_metrics.mcc_macro, Criterion("label", matthews, per_label=matthews, defined=has_both), "labels"
    ),
    "mcc_micro": _of_decisions(decision_metrics.mcc_micro, Criterion("table", matthews, per_label=matthews)),
    "auc_macro": _of_probabilities(ranking_metrics.auc_macro, "labels"),
    "auc_weighted": _of_probabilities(ranking_metrics.auc_weighted, "labels"),
    "log_loss": _of_probabilities(ranking_metrics.log_loss, "weights", "clip", "normalize", greater=False),
    "map": _of_probabilities(ranking_metrics.mean_average_precision, "labels"),
    "map_voc": _of_probabilities(ranking_metrics.mean_average_precision_voc, "labels"),
    "lwlrap": _of_probabilities(ranking_metrics.lwlrap),
    "map@k": _Family(("k", "empty"), _build_map_at_k),
}
METRICS: dict[str, Metric] = {
    name: get_metric(name)
    for name in ("f1_macro", "f1_micro", "f1_samples", "f2_samples", *_FAMILIES)
    if name not in ("fbeta", "map@k")
}
