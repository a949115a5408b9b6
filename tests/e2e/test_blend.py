"""A blend of runs and foreign predictions is a run: it is submitted, compared, and refuses what it cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import LABELS
from tests.e2e.commands import cv, listing, printed, submission, verb


@pytest.fixture
def member(finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with a submission, in the workplace."""
    shutil.copytree(finished, workplace / "runs/tiny")
    shutil.copy(finished.parent.parent / "tiny.yaml", workplace)
    assert submission(monkeypatch, "runs/tiny") == 0
    return workplace / "runs/tiny"


def foreign(oof: str = "oof.csv", test: str = "other.csv", *, leave_out: int = 0) -> str:
    """Predictions of another tool: rows and labels in another order, and a further column."""
    rng = np.random.default_rng(0)
    for path, source in ((oof, "train.csv"), (test, "sample_submission.csv")):
        table = pd.read_csv(f"data/{source}", dtype={"id": str}).iloc[::-1]
        values = table[[*LABELS]].to_numpy(dtype=float)
        predicted = pd.DataFrame(
            np.clip(0.2 + 0.6 * values + 0.1 * rng.normal(size=values.shape), 0, 1), columns=LABELS
        )
        predicted = predicted[[*LABELS[::-1]]].assign(id=table["id"].to_list(), extra="x")
        predicted = predicted.iloc[leave_out if path == oof else 0 :]
        predicted.to_parquet(path) if path.endswith(".parquet") else predicted.to_csv(path, index=False)
    return f"other={oof},{test}"


@pytest.mark.parametrize("names", [("oof.csv", "other.csv"), ("oof.parquet", "other.parquet")])
def test_a_blend_is_submitted_and_compared_as_a_run(
    names: tuple[str, str], member: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("blend", member, "--foreign", foreign(*names)) == 0
    assert "next: python make_submission.py runs/blend" in printed(capsys)
    record = json.loads(Path("runs/blend/blend.json").read_text())
    assert [each["name"] for each in record["members"]] == [str(member), "other"]
    assert record["members"][1]["alone"] == 1.0  # joined by id and label name, or it would be chance
    assert np.allclose([sum(row) for row in record["weights"].values()], 1.0)
    out_of_fold = pd.read_parquet("runs/blend/oof.parquet")
    assert sorted(out_of_fold["id"]) == sorted(pd.read_csv("data/train.csv", dtype={"id": str})["id"])
    assert submission(monkeypatch, "runs/blend") == 0
    written, blended = (
        pd.read_parquet(f"runs/blend/{name}.parquet").set_index("id")[[*LABELS]] for name in ("test", "blend")
    )
    pd.testing.assert_frame_equal(written, blended.loc[written.index])
    assert submission(monkeypatch, "runs/blend", member, "--out", "both.csv") == 0
    alone = pd.read_parquet(member / "test.parquet").set_index("id")[[*LABELS]]
    both = pd.read_parquet("both.parquet").set_index("id")[[*LABELS]]
    np.testing.assert_allclose(both, (blended.loc[both.index] + alone.loc[both.index]) / 2)
    assert verb("compare", member, "runs/blend") == 0
    assert verb("figures", "runs/blend", "sheet.png") == 0
    assert verb("report", "runs/blend") == 0
    page = " ".join(Path("runs/blend/report.html").read_text().split())
    assert "A blend of 2 members" in page
    assert "A blend has no model, so no attention is shown" in page
    assert not any(words in page for words in ("one per fold and seed", "weights.safetensors", "test_resnet ("))
    assert verb("report", "runs") == 0
    index = Path("runs/report.html").read_text()
    assert index.count("test_resnet") == 1  # of the member alone
    assert verb("blend", "runs/blend", member, "--out", "runs/again") == 0


def test_foreign_members_alone_need_a_config(
    member: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--foreign", foreign(), "--foreign", foreign("oof2.csv", "other2.csv").replace("other=", "second=")]
    assert verb("blend", *both) == 2
    assert "--config" in capsys.readouterr().err
    assert verb("blend", *both, "--config", "tiny.yaml") == 0
    assert "folds of foreign members are not known" in printed(capsys)
    assert submission(monkeypatch, "runs/blend") == 0


def test_rows_that_a_member_lacks_are_left_out_and_counted(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("blend", member, "--foreign", foreign(leave_out=4)) == 0
    assert "rests on the 20 of 24 training rows" in printed(capsys)
    assert len(pd.read_parquet("runs/blend/oof.parquet")) == 20


def spoil(path: str, column: str, value: object) -> None:
    frame = pd.read_csv(path, dtype=str)
    frame.loc[0, column] = str(value)
    frame.to_csv(path, index=False)


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "logits": (lambda: spoil("oof.csv", "red", 3.5), "probability from 0 to 1"),
    "text": (lambda: spoil("other.csv", "red", "high"), "probability from 0 to 1"),
    "another test set": (lambda: spoil("other.csv", "id", "stranger"), "predict other test rows"),
    "a missing label": (
        lambda: pd.read_csv("oof.csv").rename(columns={"red": "rot"}).to_csv("oof.csv", index=False),
        "no column 'red'",
    ),
    "a submission of several runs": (
        lambda: Path("runs/tiny/submission.json").write_text(
            Path("runs/tiny/submission.json")
            .read_text()
            .replace('"runs": [', '"runs": ["runs/x",')
            .replace('"folds": [', '"folds": [[0],')
        ),
        "remedy:   write them with python make_submission.py",
    ),
    "no test predictions": (lambda: Path("runs/tiny/submission.json").unlink(), "python make_submission.py"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained_and_nothing_is_written(
    mistake: str, member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["blend", "runs/tiny", "--foreign", foreign()]
    spoilt, message = MISTAKES[mistake]
    spoilt()
    assert verb(*words) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs/blend").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/tiny", "runs/../runs/tiny"], "runs/../runs/tiny is given twice"),
        (["runs/tiny", "--foreign", "x=a.csv,b.csv", "--foreign", "x=c.csv,d.csv"], "x is given twice"),
        (["runs/tiny"], "at least two members"),
        (["runs/tiny", "--foreign", "x=none.parquet,none.parquet"], "none.parquet: no such file"),
        (["runs/tiny", "--foreign", "x=none.csv,none.csv"], "none.csv: no such file"),
    ],
)
def test_members_that_repeat_or_are_missing_are_named(
    words: list[str], message: str, member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("blend", *words) == 2
    assert message in capsys.readouterr().err


def test_a_blend_refuses_what_it_cannot_do(
    member: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["blend", "runs/tiny", "--foreign", foreign()]
    before = listing(member)
    assert verb(*words, "--out", "runs/tiny") == 2
    assert "is a run already" in capsys.readouterr().err
    assert listing(member) == before
    assert verb(*words) == 0
    assert submission(monkeypatch, "runs/blend", "--tta", "hflip") == 2
    assert "leave --tta away" in capsys.readouterr().err
    assert cv(monkeypatch, "tiny.yaml", "--run", "blend") == 2
    assert "nothing is trained in it" in capsys.readouterr().err
    assert verb("attention", "runs/blend", "data/test/t.000.png") == 2
    assert "give one of its members" in capsys.readouterr().err
    Path("runs/blend/blend.json").unlink()  # killed before its end
    assert submission(monkeypatch, "runs/blend") == 2
    assert "repeat the python -m pipeline blend command" in capsys.readouterr().err
    assert verb(*words) == 0
    table = pd.read_parquet("runs/blend/blend.parquet")
    table.iloc[1:].to_parquet("runs/blend/blend.parquet")
    assert submission(monkeypatch, "runs/blend") == 2
    assert "without predictions for 1 of 6 test images" in capsys.readouterr().err
