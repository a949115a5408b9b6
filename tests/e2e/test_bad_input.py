"""Wrong input: exit code 2, one message with a remedy, no traceback, no changed file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.commands import cv, listing, submission

Spoil = Callable[[Path], None]


def _edit_train(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    def spoil(workplace: Path) -> None:
        path = workplace / "data/train.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)

    return spoil


def _truncate(workplace: Path) -> None:
    import cv2

    path = workplace / "data/train/t.003.png"
    image = cv2.imread(str(path))
    assert image is not None
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    path.write_bytes(whole[: len(whole) // 2])


def _foreign_ids(workplace: Path) -> None:
    path = workplace / "data/sample_submission.csv"
    path.write_text(path.read_text().replace("t.002", "stranger"))


def _spoil_weights(workplace: Path) -> None:
    (workplace / "runs/tiny/fold1/weights.safetensors").write_bytes(b"x")


def _turn_labels(workplace: Path) -> None:
    path = workplace / "data/sample_submission.csv"
    pd.read_csv(path, dtype=str)[["id", "blue", "green", "red"]].to_csv(path, index=False)


def _nothing(workplace: Path) -> None:
    pass


BAD: dict[str, tuple[Spoil, list[str], list[str]]] = {
    "missing CSV": (lambda at: (at / "data/train.csv").unlink(), [], ["data/train.csv: no such file"]),
    "missing column": (
        _edit_train(lambda table: table.rename(columns={"img_path": "image_path"})),
        [],
        ["data/train.csv", "no column 'img_path'; did you mean 'image_path'?", "competition.images.column"],
    ),
    "label not 0/1": (
        _edit_train(lambda table: table.assign(red=["2", *table["red"][1:]])),
        [],
        ["data/train.csv", "t.000/red = '2'"],
    ),
    "duplicate ids": (
        _edit_train(lambda table: table.assign(id=["t.001", *table["id"][1:]])),
        [],
        ["data/train.csv", "occur more than once", "t.001"],
    ),
    "missing image": (lambda at: (at / "data/train/t.003.png").unlink(), [], ["t.003.png"]),
    "truncated JPEG": (_truncate, [], ["t.003.png", "truncated"]),
    "unknown backbone": (_nothing, ["model.backbone=resnet51"], ["resnet51", "model.backbone"]),
    "unknown key": (_nothing, ["train.epoch=3"], ["train.epoch: unknown key; did you mean 'epochs'?"]),
    "sample with foreign ids": (_foreign_ids, [], ["sample_submission.csv", "stranger", "t.002"]),
    "unknown metric": (_nothing, ["competition.metric=f1_makro"], ["f1_makro", "f1_macro"]),
    "unknown augmentation": (_nothing, ["augment.train=[{HorizontalFlop: {}}]"], ["HorizontalFlop", "HorizontalFlip"]),
    "wrong augmentation argument": (_nothing, ["augment.train=[{HorizontalFlip: {probability: 1}}]"], ["probability"]),
    "augmentation to float": (_nothing, ["augment.train=[{Normalize: {}}]"], ["Normalize", "uint8"]),
    "unknown view": (_nothing, ["predict.tta=[hflop]"], ["hflop", "hflip"]),
    "unavailable stride": (_nothing, ["model.feature_stride=5"], ["model.feature_stride"]),
    "unknown fold": (_nothing, ["--folds", "7"], ["--folds", "7"]),
    "unwritten fold list": (_nothing, ["--folds", "x"], ["--folds", "x"]),
    "more folds than rows": (_nothing, ["folds.count=99"], ["99"]),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("state", ["new", "finished"])
def test_bad_input_has_one_message_and_changes_nothing(
    name: str,
    state: str,
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, words, parts = BAD[name]
    run = workplace / "runs/tiny"
    if state == "finished":
        shutil.copytree(finished, run)
    spoil(workplace)
    before = listing(workplace / "runs") if run.exists() else {}
    assert cv(monkeypatch, tiny_config, *words) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "remedy: " in message
    assert "Traceback" not in message
    if not (state == "finished" and "was made with other training settings" in message):
        for part in parts:
            assert part in message
    assert (listing(workplace / "runs") if run.exists() else {}) == before


OTHER: dict[str, tuple[Spoil, list[str], list[str]]] = {
    "settings": (
        _nothing,
        ["train.lr=0.5", "model.heads=4"],
        ["model.heads: 2 in the run, 4 now", "train.lr: 0.003 in the run, 0.5 now", "--fresh"],
    ),
    "rows": (_edit_train(lambda table: table.iloc[:-1]), [], ["other rows"]),
    "order of labels": (_turn_labels, ["predict.tta=[hflip]"], ["other rows, labels or targets"]),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_finished_run_with_another_config_or_other_data_is_refused(
    name: str,
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil, words, parts = OTHER[name]
    shutil.copytree(finished, workplace / "runs/tiny")
    spoil(workplace)
    before = listing(workplace / "runs")
    assert cv(monkeypatch, tiny_config, *words) == 2
    message = capsys.readouterr().err
    for part in parts:
        assert part in message
    assert listing(workplace / "runs") == before


def test_a_cache_folder_that_cannot_be_written_is_named(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    assert cv(monkeypatch, tiny_config, "images.cache=file/cache") == 2
    assert "images.cache" in capsys.readouterr().err


def _new_views(workplace: Path) -> None:
    path = workplace / "runs/tiny/config.yaml"
    path.write_text(path.read_text().replace("- identity", "- hflip"))


def _unfinish(workplace: Path) -> None:
    for name in ("fold0/done.json", "fold1/done.json", "thresholds.json"):
        (workplace / "runs/tiny" / name).unlink()


def _delete_scores(workplace: Path) -> None:
    for name in ("fold1/done.json", "thresholds.json"):
        (workplace / "runs/tiny" / name).unlink()


def _delete_fold_1(workplace: Path) -> None:
    path = workplace / "runs/tiny/oof.parquet"
    table = pd.read_parquet(path)
    table[table["fold"] == 0].to_parquet(path, index=False)


SUBMISSIONS: dict[str, tuple[Spoil, list[str], list[str]]] = {
    "not a run": (_nothing, ["data"], ["data is not a run folder"]),
    "nothing finished": (_unfinish, ["runs/tiny"], ["no fold of the run is finished yet", "goes on"]),
    "a scored fold that is not finished": (
        lambda at: (at / "runs/tiny/fold1/done.json").unlink(),
        ["runs/tiny"],
        ["not on its finished folds"],
    ),
    "missing test image": (lambda at: (at / "data/test/t.002.png").unlink(), ["runs/tiny"], ["t.002.png"]),
    "sample with foreign ids": (_foreign_ids, ["runs/tiny"], ["sample_submission.csv", "stranger"]),
    "unknown view": (_nothing, ["runs/tiny", "--tta", "hflop"], ["hflop"]),
    "folds without scores": (
        _delete_scores,
        ["runs/tiny"],
        ["not finished: folds 1", "fold 0 of 0-1", "--folds finished"],
    ),
    "thresholds of other folds": (_delete_fold_1, ["runs/tiny"], ["other folds than the thresholds"]),
    "thresholds of other views": (_new_views, ["runs/tiny"], ["not fitted with the settings", "run_cv.py"]),
    "a folder as the output": (_nothing, ["runs/tiny", "--out", "data"], ["data cannot be written"]),
    "broken weights": (_spoil_weights, ["runs/tiny"], ["fold1/weights.safetensors"]),
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_wrong_submission_command_writes_nothing(
    name: str, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words, parts = SUBMISSIONS[name]
    shutil.copytree(finished, workplace / "runs/tiny")
    spoil(workplace)
    before = listing(workplace / "runs")
    assert submission(monkeypatch, *words) == 2
    message = capsys.readouterr().err
    assert "remedy: " in message
    for part in parts:
        assert part in message
    assert listing(workplace / "runs") == before
