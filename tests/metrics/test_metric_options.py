"""Metrics of configs: shorthand names, options, names in tables, and mistakes."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from pipeline.config import MetricConfig
from pipeline.errors import ConfigError
from pipeline.metrics.metric_spec import metric_name
from pipeline.metrics.registry import METRICS, get_metric
from tests.thresholds.tables import values_of

LABELS = ("any", "left side", "right")
RNG = np.random.default_rng(0)
TARGETS = (RNG.random((50, 3)) < 0.4).astype(np.uint8)
PROBABILITIES = RNG.random((50, 3))


def measure(**options: Any) -> float:
    metric = get_metric(MetricConfig(**options), LABELS)
    values = values_of(metric, PROBABILITIES)
    return metric.function(TARGETS, values).value


@pytest.mark.parametrize(
    "name", ["f1_macro", "f2_weighted", "mcc_macro", "auc_macro", "auc_weighted", "map", "map_voc"]
)
def test_the_mean_is_over_the_named_labels(name: str) -> None:
    metric = get_metric(MetricConfig(name=name, labels=("right", "any")), LABELS)
    values = values_of(metric, PROBABILITIES)
    value, per_label, left_out = metric.function(TARGETS, values)
    assert value == pytest.approx(get_metric(name).function(TARGETS[:, [0, 2]], values[:, [0, 2]]).value)
    assert per_label is not None
    assert np.isnan(per_label).tolist() == [False, True, False]
    assert left_out == ()  # only a named label can be left out
    assert metric.criterion is None  # a sweep would follow all labels


def test_log_loss_weights_labels() -> None:
    cells = -np.log(np.where(TARGETS == 1, PROBABILITIES, 1 - PROBABILITIES))
    weights = np.array([2.0, 1.0, 1.0])
    assert measure(name="log_loss", weights={"any": 2}) == pytest.approx((cells * weights).sum() / (50 * 4))
    plain_sum = (cells * weights).sum() / (50 * 3)
    assert measure(name="log_loss", weights={"any": 2}, normalize=False) == pytest.approx(plain_sum)
    assert measure(name="log_loss", weights={"any": 0, "right": 0}) == pytest.approx(cells[:, 1].mean())


def test_log_loss_clips_at_its_option() -> None:
    metric = get_metric(MetricConfig(name="log_loss", clip=0.01))
    assert metric.function(np.array([[1]], np.uint8), np.array([[0.0]])).value == pytest.approx(-math.log(0.01))


def test_label_weights_apply_to_known_cells_only() -> None:
    targets = np.array([[1.0, np.nan], [0.0, 1.0]])
    metric = get_metric(MetricConfig(name="log_loss", weights={"a": 3}), ("a", "b"))
    value = metric.function(targets, np.array([[0.5, 0.9], [0.25, 0.5]])).value
    assert value == pytest.approx(-(3 * math.log(0.5) + 3 * math.log(0.75) + math.log(0.5)) / 7)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"name": "fbeta", "average": "samples", "beta": 0.5}, "f0.5_samples"),
        ({"name": "fbeta"}, "f1_macro"),
        ({"name": "f2_samples", "empty": 1}, "f2_samples (empty: 1)"),
        ({"name": "map@k", "k": 5}, "map@5"),
        ({"name": "auc_macro", "labels": ("any", "right")}, "auc_macro (labels: any right)"),
        ({"name": "log_loss", "weights": {"any": 2}, "clip": 1e-7}, "log_loss (weights: any=2, clip: 1e-07)"),
    ],
)
def test_tables_show_a_metric_with_its_options(options: dict[str, Any], name: str) -> None:
    config = MetricConfig(**options)
    assert metric_name(config) == get_metric(config, LABELS).name == name


def test_a_shorthand_name_equals_its_options() -> None:
    assert measure(name="fbeta", average="macro", beta=2) == measure(name="f2_macro")
    assert measure(name="fbeta") == measure(name="f1_macro")
    assert measure(name="map@k", k=2) == measure(name="map@2")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"name": "auc_macro", "beta": 2}, "auc_macro has no option 'beta'"),
        ({"name": "lwlrap", "labels": ("any",)}, "lwlrap has no option 'labels'"),
        ({"name": "auc_macro", "labels": ("lefd side",)}, "no label 'lefd side'; did you mean 'left side'?"),
        ({"name": "log_loss", "weights": {"Any": 2}}, "no label 'Any'"),
        ({"name": "f2_macro", "beta": 1}, "f2_macro sets beta to 2"),
        ({"name": "f1_macro", "empty": 1}, "do not fit the average macro"),
        ({"name": "f1_samples", "labels": ("any",)}, "do not fit the average samples"),
        ({"name": "map@k"}, "map@k needs k"),
        ({"name": "auc_makro"}, "unknown metric 'auc_makro'; did you mean 'auc_macro'?"),
        ({"name": "f1_makro"}, "unknown metric 'f1_makro'; did you mean 'f1_macro'?"),
        ({"name": "f0_macro"}, "beta must be above 0"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(options: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_metric(MetricConfig(**options), LABELS)
    assert part in str(caught.value)
    assert caught.value.remedy


def test_metrics_can_be_pickled() -> None:
    for metric in [*METRICS.values(), get_metric(MetricConfig(name="log_loss", weights={"any": 2}), LABELS)]:
        again = pickle.loads(pickle.dumps(metric))
        assert again.name == metric.name
