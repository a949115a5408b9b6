"""Every metric by name, with its options: from what a config says to a `Metric`.

What a metric does with a label without positives, an empty row, ties and unknown cells stands with its function
in `decision_metrics.py` and `ranking_metrics.py`.
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
_FORMS = "f<beta>_<macro|micro|samples|weighted>, map@<k>, FILE.py:FUNCTION"


class Criterion(NamedTuple):
    """A decision metric as a sweep over thresholds sees it: the mean over its units of `value`."""

    unit: Unit
    value: Value
    per_label: Value  # for each label alone, better in the same direction
    defined: Callable[[Counts], NDArray[np.bool_]] = has_positives  # of units that are labels: which the mean counts


@dataclass(frozen=True)
class Metric:
    """A metric, ready to be computed; it can be sent to another process.

    `function(targets, values)` takes targets (N, K), see `split_targets`, and, as `takes` says, decisions (N, K)
    0/1 or probabilities (N, K) in [0, 1]; it raises ValueError for anything else.
    """

    name: str
    takes: Takes
    greater_is_better: bool
    function: Function
    criterion: Criterion | None = None  # None where no sweep follows the metric exactly


def get_metric(spec: str | MetricConfig, labels: Sequence[str] = (), *, custom_functions: bool = False) -> Metric:
    """The metric that `spec` describes.

    Args:
        spec: a name (`f1_macro`, `f0.5_samples`, `map@3`, ...), FILE.py:FUNCTION, or a metric with options.
        labels: the names of the K labels, which the options `labels` and `weights` refer to.
        custom_functions: whether a function of the user's own may be loaded, which runs its file. Only for a spec
            from the user's own config: what a run folder names may be a stranger's.

    Raises:
        ConfigError: the metric, an option or a label is unknown; a function cannot be loaded, or may not be.
    """
    config = as_metric_config(spec)
    if config.function is not None:
        return _custom_metric(config, allowed=custom_functions)
    name, options = name_and_options(config)
    if name not in _FAMILIES:
        raise ConfigError(
            f"unknown metric '{config.name}'{nearest(str(config.name), METRICS)}",
            remedy=f"choose one of {', '.join(METRICS)}, {_FORMS}",
        )
    family = _FAMILIES[name]
    foreign = sorted(set(options) - set(family.options))
    if foreign:
        raise ConfigError(
            f"competition.metric: {name} has no option '{foreign[0]}'",
            expected=f"of the options only {', '.join(family.options)}" if family.options else "no options",
            remedy="leave it out, or choose another metric",
        )
    return family.build(metric_name(config), with_indices(options, labels))


def judged_by(spec: str | MetricConfig, labels: Sequence[str] = ()) -> Takes:
    """What the metric takes, also one of somebody's own, whose file is not run. Raises ConfigError as `get_metric`."""
    config = as_metric_config(spec)
    return get_metric(config, labels).takes if config.function is None else config.takes or "probabilities"


def _custom_metric(config: MetricConfig, *, allowed: bool) -> Metric:
    assert config.function is not None
    foreign = set(config.model_dump(exclude_none=True)) - {"function", "takes", "greater_is_better"}
    if foreign:
        raise ConfigError(
            f"competition.metric: a function has no option '{min(foreign)}'",
            expected="of the options only takes, greater_is_better",
            remedy="leave it out",
        )
    if not allowed:
        raise ConfigError(
            f"the metric {config.function} is a function of somebody's own and is not run from a run folder",
            remedy="use run_cv.py with the config that names it; a single run's stored scores need no function",
        )
    function = custom_function(config.function)
    function.load()
    better = config.greater_is_better is not False
    return Metric(str(function), judged_by(config), better, function)


class _Family(NamedTuple):
    """Metrics that differ in their options only."""

    options: tuple[str, ...]
    build: Callable[[str, Options], Metric]


def _build_f(name: str, options: Options) -> Metric:
    average, beta = options.pop("average", "macro"), options.pop("beta", 1.0)
    fitting = {"macro": {"columns"}, "weighted": {"columns"}, "samples": {"empty"}, "micro": set[str]()}[average]
    if set(options) - fitting:
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


def _decided(
    function: Callable[..., MetricValue], criterion: Criterion, *options: str, greater: bool = True
) -> _Family:
    def build(name: str, given: Options) -> Metric:
        exact = None if "columns" in given else criterion
        return Metric(name, "decisions", greater, partial(function, **given), exact)

    return _Family(options, build)


def _ranked(function: Callable[..., MetricValue], *options: str, greater: bool = True) -> _Family:
    return _Family(options, lambda name, given: Metric(name, "probabilities", greater, partial(function, **given)))


_CELLS = Criterion("table", accuracy, per_label=accuracy)
_FAMILIES: dict[str, _Family] = {
    "fbeta": _Family(("average", "beta", "labels", "empty"), _build_f),
    "accuracy_cells": _decided(decision_metrics.accuracy_cells, _CELLS),
    "accuracy_subset": _decided(decision_metrics.accuracy_subset, Criterion("row", exact_match, per_label=accuracy)),
    "hamming": _decided(decision_metrics.hamming, Criterion("table", error_rate, per_label=error_rate), greater=False),
    "mcc_macro": _decided(
        decision_metrics.mcc_macro, Criterion("label", matthews, per_label=matthews, defined=has_both), "labels"
    ),
    "mcc_micro": _decided(decision_metrics.mcc_micro, Criterion("table", matthews, per_label=matthews)),
    "auc_macro": _ranked(ranking_metrics.auc_macro, "labels"),
    "auc_weighted": _ranked(ranking_metrics.auc_weighted, "labels"),
    "log_loss": _ranked(ranking_metrics.log_loss, "weights", "clip", "normalize", greater=False),
    "map": _ranked(ranking_metrics.mean_average_precision, "labels"),
    "map_voc": _ranked(ranking_metrics.mean_average_precision_voc, "labels"),
    "lwlrap": _ranked(ranking_metrics.lwlrap),
    "map@k": _Family(("k", "empty"), _build_map_at_k),
}
_PLAIN = (
    "f1_macro",
    "f1_micro",
    "f1_samples",
    "f2_samples",
    *(name for name in _FAMILIES if name not in ("fbeta", "map@k")),
)
METRICS: dict[str, Metric] = {}
METRICS.update({name: get_metric(name) for name in _PLAIN})
