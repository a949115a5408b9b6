"""Submissions of a finished run: all formats, hidden test sets, and `python -m pipeline validate`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import LABELS
from tests.e2e.commands import cv, printed, submission, verb


@pytest.fixture
def run(finished: Path, workplace: Path) -> Path:
    """A finished run in the workplace."""
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    shutil.copy(finished.parent.parent / "tiny.yaml", workplace)
    return run


KINDS = {
    "wide_probability": (["submission.digits=3"], "id,red,green,blue"),
    "ranked": (["submission.k=2"], "id,answer"),
    "delimited": (["submission.empty=nothing"], "id,answer"),
    "long_probability": (["competition.sample_id=row_id"], "row_id,answer"),
    "long_binary": (["competition.sample_id=row_id"], "row_id,answer"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_written_and_validated(
    kind: str, run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, header = KINDS[kind]
    sample = workplace / "data/sample_submission.csv"
    ids = pd.read_csv(sample, dtype=str)["id"]
    if not kind.startswith("wide"):
        rows = (
            [f"{id_}_{label},0" for id_ in ids for label in LABELS] if "long" in kind else [f"{id_},red" for id_ in ids]
        )
        sample.write_text("\n".join([header, *rows]) + "\n")
    settings = [f"submission.format={kind}", *keys, f"competition.labels.columns=[{','.join(LABELS)}]"]
    words = ["tiny.yaml", *settings, "--run", kind]
    assert cv(monkeypatch, *words) == 0
    assert submission(monkeypatch, f"runs/{kind}") == 0
    written = Path(f"runs/{kind}/submission.csv")
    assert written.read_text().splitlines()[0] == header
    capsys.readouterr()
    assert verb("validate", f"runs/{kind}/config.yaml", written) == 0
    assert f"{written}: valid" in capsys.readouterr().out
    written.write_text(written.read_text().replace(f"{ids[0]}", "stranger"))
    assert verb("validate", f"runs/{kind}/config.yaml", written) == 2
    shown = capsys.readouterr().err
    assert "would be rejected" in shown
    assert "ids are not the sample's ('stranger" in shown


def test_row_rules_apply_to_scores_and_submission(
    run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiny.yaml", "submission.min_labels=1", "submission.max_labels=1"]
    assert cv(monkeypatch, *words) == 0
    assert json.loads((run / "thresholds.json").read_text())["rows"]["max_labels"] == 1
    assert submission(monkeypatch, run) == 0
    assert (pd.read_csv(run / "submission.csv")[list(LABELS)].sum(axis=1) == 1).all()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("max_labels: 1", "max_labels: 2"))
    capsys.readouterr()
    assert submission(monkeypatch, run) == 2
    assert "not fitted with the settings" in capsys.readouterr().err


def test_exclusive_labels_are_never_predicted_together(
    run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tiny.yaml", "competition.labels.exclusive=[[red, blue]]", "submission.min_labels=2", "--run", "exclusive"]
    assert cv(monkeypatch, *words) == 0
    assert submission(monkeypatch, "runs/exclusive") == 0
    written = pd.read_csv("runs/exclusive/submission.csv")
    assert (written["red"] + written["blue"] == 1).all()
    assert (written["green"] == 1).all()


def test_all_images_of_a_hidden_test_set_are_predicted(
    run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = workplace / "hidden"
    shutil.copytree(workplace / "data/test", hidden)
    shutil.copy(workplace / "data/test/t.000.png", hidden / "t.999.png")
    assert submission(monkeypatch, run, "--images", hidden) == 0
    shown = printed(capsys)
    assert "holds 7: all of these are answered" in shown
    written = pd.read_csv(run / "submission.csv", dtype=str)
    assert written["id"].tolist() == [*(f"t.{number:03d}" for number in range(6)), "t.999"]
    assert written.iloc[6, 1:].tolist() == written.iloc[0, 1:].tolist()
    assert submission(monkeypatch, run, "--images", hidden, "--sample", "data/sample_submission.csv") == 0
    assert len(pd.read_csv(run / "submission.csv")) == 6


def test_a_full_memory_is_reported_with_a_remedy(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    monkeypatch.setattr("pipeline.run.submission.test_predictions.load_ensemble", full)
    assert submission(monkeypatch, "runs/tiny") == 2
    assert "lower predict.batch_size, or give fewer runs at once" in " ".join(capsys.readouterr().err.split())


def test_validate_takes_the_rows_of_a_hidden_test_set(
    run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = workplace / "hidden"
    shutil.copytree(workplace / "data/test", hidden)
    shutil.copy(workplace / "data/test/t.000.png", hidden / "t.999.png")
    assert submission(monkeypatch, run, "--images", hidden) == 0
    assert verb("validate", run / "config.yaml", run / "submission.csv") == 2
    assert "ids are not the sample's" in capsys.readouterr().err
    assert verb("validate", run / "config.yaml", run / "submission.csv", "--images", hidden) == 0


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_runs_are_averaged_by_the_names_of_their_labels(
    order: tuple[int, ...], run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submission(monkeypatch, run, run, "--out", "same.csv") == 0
    turned = workplace / "runs/turned"
    columns = ",".join(LABELS[place] for place in order)
    words = ["tiny.yaml", f"competition.labels.columns=[{columns}]", "train.epochs=1", "--run", "turned"]
    assert cv(monkeypatch, *words) == 0
    assert submission(monkeypatch, run, turned, "--out", "both.csv") == 0
    assert submission(monkeypatch, turned, "--out", "alone.csv") == 0
    both, alone, first = (
        pd.read_parquet(name).set_index("id")[list(LABELS)]
        for name in ("both.parquet", "alone.parquet", "same.parquet")
    )
    pd.testing.assert_frame_equal(both, (alone + first) / 2)
