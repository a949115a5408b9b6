"""Custom metrics: run only for the user's own config, and each fault gives one clear message."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import MetricConfig, load_config
from pipeline.errors import ConfigError
from pipeline.metrics.custom_metric import try_custom_metric
from pipeline.metrics.registry import Metric, get_metric

TARGETS = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
SCORES = np.array([[0.9, 0.2], [0.1, 0.8], [0.6, 0.4]])


def custom(tmp_path: Path, body: str, *, name: str = "score") -> Metric:
    path = tmp_path / "my_metric.py"
    path.write_text(body)
    return get_metric(f"{path}:{name}", custom_functions=True)


def test_the_value_is_the_functions(tmp_path: Path) -> None:
    metric = custom(tmp_path, "def score(targets, values):\n    return (targets * values).sum()\n")
    assert metric.function(TARGETS, SCORES).value == pytest.approx((TARGETS * SCORES).sum())
    assert (metric.name, metric.takes, metric.greater_is_better) == ("my_metric.py:score", "probabilities", True)
    assert metric.criterion is None
    again = pickle.loads(pickle.dumps(metric))
    assert again.function(TARGETS, SCORES) == metric.function(TARGETS, SCORES)


def test_options_set_the_input_and_the_direction(tmp_path: Path) -> None:
    path = tmp_path / "loss.py"
    path.write_text("def wrong(targets, decisions):\n    return float((targets != decisions).mean())\n")
    config = MetricConfig(function=f"{path}:wrong", takes="decisions", greater_is_better=False)
    metric = get_metric(config, custom_functions=True)
    assert (metric.takes, metric.greater_is_better) == ("decisions", False)
    assert metric.function(TARGETS, (SCORES > 0.5).astype(np.uint8)).value == pytest.approx(1 / 6)


def test_unknown_cells_are_nan_for_the_function(tmp_path: Path) -> None:
    metric = custom(
        tmp_path, "import numpy as np\ndef score(t, v):\n    return np.isnan(t).sum() + 10 * np.nansum(t)\n"
    )
    assert metric.function(np.array([[0.7, np.nan], [0.0, 1.0]]), SCORES[:2]).value == 21.0


def test_the_function_cannot_change_the_tables(tmp_path: Path) -> None:
    metric = custom(tmp_path, "def score(t, v):\n    t[:] = 0\n    v[:] = 0\n    return 1.0\n")
    targets, scores = TARGETS.copy(), SCORES.copy()
    metric.function(targets, scores)
    np.testing.assert_array_equal(targets, TARGETS)
    np.testing.assert_array_equal(scores, SCORES)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("def skore(t, v):\n    return 1.0\n", "no function 'score'; did you mean 'skore'?"),
        ("score = 3\n", "no function 'score'"),
        ("import nothing_of_this_name\n", "cannot be run: ModuleNotFoundError"),
        ("def score(t, v:\n", "cannot be run: SyntaxError"),
        ("raise SystemExit(0)\n", "cannot be run: SystemExit"),
        ("def score(t, v):\n    return t.nothing\n", "raised AttributeError"),
        ("def score(t, v):\n    x = 1\n    return x / 0\n", "raised ZeroDivisionError: division by zero (line 3)"),
        ("def score(t):\n    return 1.0\n", "raised TypeError"),
        ("def score(t, v):\n    return None\n", "returned NoneType, not a number"),
        ("def score(t, v):\n    return v\n", "returned an array of shape (3, 2), not a number"),
        ("def score(t, v):\n    return float('nan')\n", "returned nan, not a finite number"),
        ("def score(t, v):\n    return True\n", "returned bool, not a number"),
    ],
)
def test_each_fault_of_a_function_gives_its_message(tmp_path: Path, body: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        try_custom_metric(custom(tmp_path, body).function, TARGETS, takes="probabilities")
    assert part in str(caught.value)
    assert "competition.metric" in caught.value.problem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.py: no such file"):
        get_metric(str(tmp_path / "none.py:score"), custom_functions=True)


def test_options_of_other_metrics_are_refused(tmp_path: Path) -> None:
    config = MetricConfig(function=f"{tmp_path / 'my.py'}:score", beta=2)
    with pytest.raises(ConfigError, match="no option 'beta'"):
        get_metric(config, custom_functions=True)


def test_a_custom_metric_of_a_run_folder_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef score(t, v):\n    return 1.0\n")
    with pytest.raises(ConfigError, match="not run from a run folder"):
        get_metric(f"{tmp_path / 'my.py'}:score")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("entry", ["metric: mine.py:score", "metric: {function: mine.py:score, takes: decisions}"])
def test_the_path_is_relative_to_the_config(tmp_path: Path, entry: str) -> None:
    (tmp_path / "mine.py").write_text("def score(targets, values):\n    return 0.25\n")
    (tmp_path / "mine.yaml").write_text(f"competition: {{{entry}}}")
    metric = get_metric(load_config(tmp_path / "mine.yaml").competition.metric, custom_functions=True)
    assert metric.function(TARGETS, SCORES).value == 0.25
    assert metric.takes == ("decisions" if "takes" in entry else "probabilities")
