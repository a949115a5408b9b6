"""Two runs are compared on the rows that both have validated, joined by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.config import load_config
from pipeline.console import make_console
from pipeline.errors import RunError
from pipeline.files import write_csv, write_parquet
from pipeline.report.compare import compare, print_comparison
from pipeline.run.folder import RunFolder
from tests.conftest import LABELS
from tests.e2e.commands import printed


def scored_run(config: Path, name: str, noise: float, *overrides: str) -> RunFolder:
    """A run folder with a config and out-of-fold probabilities: the targets plus noise."""
    run = RunFolder(Path("runs") / name)
    run.open(load_config(config, list(overrides)), fresh=False)
    train = pd.read_csv("data/train.csv", dtype={"id": str}).iloc[:: -1 if noise else 1]
    rng = np.random.default_rng(1)
    known = train[list(LABELS)].to_numpy(dtype=np.float64)
    scores = pd.DataFrame(
        np.clip(0.25 + 0.5 * known + noise * rng.normal(size=known.shape), 0, 1), columns=list(LABELS)
    )
    scores.insert(0, "id", train["id"].to_list())
    scores.insert(1, "fold", np.arange(len(train)) % 3)
    write_parquet(run.oof, scores)
    write_csv(run.folds, scores[["id", "fold"]].assign(group=""))
    return run


def test_the_better_run_is_found_and_ids_are_joined(tiny_config: Path, workplace: Path) -> None:
    worse, better = scored_run(tiny_config, "worse", 0.4), scored_run(tiny_config, "better", 0.0)
    found = compare(worse, better)
    assert found.scores[1] == 1.0
    assert found.difference == pytest.approx(found.scores[1] - found.scores[0])
    assert 0 < found.spread.low < found.difference < found.spread.high
    assert found.better > 0.95
    again = compare(better, worse)
    assert again.difference == -found.difference
    assert again.spread.low == pytest.approx(-found.spread.high)


def test_a_run_does_not_differ_from_itself(tiny_config: Path, workplace: Path) -> None:
    run = scored_run(tiny_config, "one", 0.3)
    found = compare(run, run)
    assert (found.difference, found.spread, found.better) == (0.0, (0.0, 0.0), 0.0)


def test_runs_of_two_metrics_are_not_compared(tiny_config: Path, workplace: Path) -> None:
    first = scored_run(tiny_config, "one", 0.3)
    second = scored_run(tiny_config, "two", 0.3, "competition.metric=map")
    with pytest.raises(RunError, match="another metric"):
        compare(first, second)


def test_runs_of_other_rows_are_not_compared(tiny_config: Path, workplace: Path) -> None:
    first, second = scored_run(tiny_config, "one", 0.3), scored_run(tiny_config, "two", 0.3)
    write_parquet(second.oof, pd.read_parquet(second.oof).iloc[1:])
    with pytest.raises(RunError, match="do not validate the same rows"):
        compare(first, second)


def test_runs_with_other_finished_folds_are_compared_on_those_in_common(
    tiny_config: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = scored_run(tiny_config, "one", 0.3), scored_run(tiny_config, "two", 0.0)
    tables = [pd.read_parquet(run.oof) for run in (first, second)]
    folds = [dict(zip(table["id"], table["fold"], strict=True)) for table in tables]
    write_parquet(second.oof, tables[1][tables[1]["fold"] == 1])
    found = compare(first, second)
    assert (found.rows, found.unshared) == (8, 16)
    assert found.scores[1] == 1.0
    print_comparison(make_console(), first, second)
    shown = printed(capsys)
    assert shown.count("of 0-2") == 1
    assert "runs/two: fold 1 of 0-2" in shown
    apart = [id_ for id_ in folds[0] if folds[0][id_] != 1 and folds[1][id_] != 0][:4]
    write_parquet(first.oof, tables[0][tables[0]["id"].isin(apart) | (tables[0]["fold"] != 1)])
    write_csv(second.folds, tables[0][["id", "fold"]].assign(group=""))
    write_parquet(second.oof, tables[0][tables[0]["fold"] == 1])
    with pytest.raises(RunError, match="no row is validated by all of"):
        compare(first, second)


@pytest.mark.parametrize("metric", ["{name: fbeta, labels: [red, blue]}", "{name: auc_macro, labels: [green]}"])
def test_a_metric_of_named_labels_joins_them_by_name(tiny_config: Path, workplace: Path, metric: str) -> None:
    worse = scored_run(tiny_config, "worse", 0.4, f"competition.metric={metric}")
    better = scored_run(tiny_config, "better", 0.0, f"competition.metric={metric}")
    turned = pd.read_parquet(better.oof)
    write_parquet(better.oof, turned[["id", "fold", *reversed(LABELS)]])
    found = compare(worse, better)
    assert found.scores[1] == 1.0 > found.scores[0]
    assert found.resamples == 1_000


def test_groups_are_those_of_the_folds_file(tiny_config: Path, workplace: Path) -> None:
    run = scored_run(tiny_config, "one", 0.3)
    assert not compare(run, run).grouped
    folds = pd.read_csv(run.folds, dtype=str, keep_default_na=False)
    write_csv(run.folds, folds.assign(group=[f"g{row // 6}" for row in range(len(folds))]))
    assert compare(run, run).grouped


def test_runs_with_one_validation_fold_are_compared_over_parts_of_it(tiny_config: Path, workplace: Path) -> None:
    runs = [scored_run(tiny_config, name, noise) for name, noise in (("worse", 0.4), ("better", 0.0))]
    for run in runs:
        write_parquet(run.oof, pd.read_parquet(run.oof).assign(fold=0))
    assert compare(*runs).difference > 0


def test_a_training_table_that_lost_rows_is_refused(tiny_config: Path, workplace: Path) -> None:
    run = scored_run(tiny_config, "one", 0.3)
    train = pd.read_csv("data/train.csv", dtype=str)
    train.iloc[1:].to_csv("data/train.csv", index=False)
    with pytest.raises(RunError, match="does not hold any more"):
        compare(run, run)
