"""The audit: each planted fault is found and named, and a clean set gives no warning."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.audit.check import audit_competition
from pipeline.audit.findings import Audit, Finding
from pipeline.audit.labels import label_findings
from pipeline.config import check_config
from tests.images.test_near_duplicates import scene

LABELS = ("red", "green")


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """40 train and 12 test scenes, all different."""
    for part, count, seed in (("train", 40, 0), ("test", 12, 500)):
        (tmp_path / part).mkdir()
        ids = [f"{part[0]}{number:03d}x" for number in range(count)]
        for number, id_ in enumerate(ids):
            colours = np.stack([scene(seed + number), scene(seed + number)[:, ::-1], scene(seed + number)], axis=2)
            _write(tmp_path / part / f"{id_}.jpg", colours)
        generator = np.random.default_rng(seed)
        frame = pd.DataFrame({"id": ids, "img_path": [f"{part}/{id_}.jpg" for id_ in ids]})
        frame[list(LABELS)] = generator.integers(0, 2, (count, 2)) if part == "train" else 0
        frame["patient"] = [f"p{number // 2}" for number in range(count)]
        frame.to_csv(tmp_path / f"{part}.csv", index=False)
        if part == "test":
            frame[["id", *LABELS]].to_csv(tmp_path / "sample_submission.csv", index=False)
    return tmp_path


def _write(path: Path, image: np.ndarray, quality: int = 95) -> None:
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return np.asarray(image)


def _audit(root: Path, **sections: object) -> Audit:
    competition = {"root": str(root), "test": "test.csv", **dict(sections.pop("competition", {}))}  # type: ignore[call-overload]
    return audit_competition(
        check_config({"competition": competition, **sections}, source="test"), listen=lambda _: None
    )


def _kinds(audit: Audit) -> dict[str, Finding]:
    return {finding.kind: finding for finding in audit.findings}


def test_a_clean_set_is_ready_without_warnings(clean: Path) -> None:
    audit = _audit(clean, competition={"groups": {"column": "patient"}})
    assert audit.ready
    assert audit.of("warning") == ()
    assert set(_kinds(audit)) <= {"groups", "rows_without_labels", "train_table"}
    assert "patient" in _kinds(audit)["groups"].message
    json.dumps(audit.to_json(), allow_nan=False)


@pytest.mark.parametrize("seed", range(10))
def test_planted_leaks_are_found(clean: Path, seed: int) -> None:
    """A turned and a smaller copy inside train, a copy saved again in test, a patient in two folds."""
    generator = np.random.default_rng(seed)
    a, b, c, d, e, f = (int(row) for row in generator.permutation(40)[:6])
    train = [clean / f"train/t{number:03d}x.jpg" for number in range(40)]
    _write(train[b], np.rot90(_read(train[a]), int(generator.integers(1, 4))), quality=int(generator.integers(40, 95)))
    size = int(generator.integers(90, 300))
    _write(train[d], cv2.resize(_read(train[c]), (size, size), interpolation=cv2.INTER_AREA), quality=60)
    test = clean / f"test/t{int(generator.integers(12)):03d}x.jpg"
    _write(test, _read(train[e])[:, ::-1], quality=50)
    folds = np.arange(40) // 2 % 4
    folds[f] = (folds[f] + 1) % 4
    pd.DataFrame({"id": [path.stem for path in train], "fold": folds}).to_csv(clean / "folds.csv", index=False)

    audit = _audit(clean, competition={"groups": {"column": "patient"}}, folds={"file": "folds.csv"})
    kinds = _kinds(audit)
    inside = {frozenset(pair[:2]) for pair in kinds["duplicates_train"].items}
    assert inside == {frozenset((train[a].stem, train[b].stem)), frozenset((train[c].stem, train[d].stem))}
    assert [tuple(pair[:2]) for pair in kinds["duplicates_test"].items] == [(train[e].stem, test.stem)]
    assert [item[0] for item in kinds["folds_split_groups"].items] == [f"p{f // 2}"]
    across = {frozenset((train[i].stem, train[j].stem)) for i, j in ((a, b), (c, d)) if folds[i] != folds[j]}
    found = kinds["duplicates_folds"].items if across else ()
    assert {frozenset(pair[:2]) for pair in found} == across
    assert not audit.ready


def test_groups_by_image_keep_copies_in_one_fold(clean: Path) -> None:
    (clean / "train/t001x.jpg").write_bytes((clean / "train/t030x.jpg").read_bytes())
    _write(clean / "train/t002x.jpg", np.rot90(_read(clean / "train/t020x.jpg")))
    audit = _audit(clean, competition={"groups": {"images": "near", "turned": True}})
    assert "duplicates_train" in _kinds(audit)
    assert "duplicates_folds" not in _kinds(audit)
    assert "38 groups of 40 rows" in _kinds(audit)["groups"].message


def test_broken_and_odd_images_are_all_collected(clean: Path) -> None:
    train = clean / "train"
    (train / "t000x.jpg").unlink()
    whole = (train / "t001x.jpg").read_bytes()
    (train / "t001x.jpg").write_bytes(whole[: len(whole) // 2])
    _write(train / "t002x.jpg", np.full((64, 64, 3), 7, np.uint8))
    _write(train / "t003x.jpg", scene(3))
    _write(train / "t004x.jpg", _read(train / "t004x.jpg")[:40])
    (clean / "test/t000x.jpg").write_bytes(b"no image")
    audit = _audit(clean)
    kinds = _kinds(audit)
    named = {kind: [item.split(":")[0] for item in kinds[kind].items] for kind in kinds if kind.startswith("t")}
    assert named["train_missing"] == ["t000x"]
    assert named["train_unreadable"] == ["t001x"]
    assert named["train_constant"] == ["t002x"]
    assert named["train_modes"] == ["t003x"]
    assert named["train_aspect"] == ["t004x"]
    assert named["test_unreadable"] == ["t000x"]
    assert {finding.kind for finding in audit.errors} == {"train_missing", "train_unreadable", "test_unreadable"}
    assert all(finding.remedy for finding in audit.findings if finding.level != "note")


def test_a_sample_with_other_ids_is_an_error_and_the_audit_continues(clean: Path) -> None:
    sample = clean / "sample_submission.csv"
    sample.write_text(sample.read_text().replace("t003x", "stranger"))
    (clean / "train/t000x.jpg").unlink()
    assert {finding.kind for finding in _audit(clean).errors} == {"test_table", "train_missing"}


def test_a_darker_test_set_is_a_shift(clean: Path) -> None:
    for path in (clean / "test").iterdir():
        _write(path, _read(path) // 3)
    audit = _audit(clean)
    assert "shift_brightness" in _kinds(audit)
    assert audit.figures["shifts"]["brightness"]["p_value"] < 0.001
    assert "shift_width" not in _kinds(audit)


def test_copies_with_other_labels_are_listed(clean: Path) -> None:
    table = pd.read_csv(clean / "train.csv", dtype=str)
    table.loc[[5, 9], list(LABELS)] = [["1", "0"], ["0", "1"]]
    table.to_csv(clean / "train.csv", index=False)
    (clean / "train/t009x.jpg").write_bytes((clean / "train/t005x.jpg").read_bytes())
    assert _kinds(_audit(clean))["duplicates_disagree"].items == (("t005x", "t009x", "bytes", 1.0),)


def test_label_structure_is_found() -> None:
    generator = np.random.default_rng(0)
    free = generator.integers(0, 2, (400, 1))
    weather = np.eye(3, dtype=int)[generator.integers(0, 3, 400)]
    small = free * generator.integers(0, 2, (400, 1))
    targets = np.hstack([free, weather, small, np.zeros((400, 1), int), np.eye(400, 1, dtype=int)]).astype(np.uint8)
    labels = ["dog", "clear", "haze", "rain", "puppy", "none", "once"]
    found, figures = label_findings(targets, labels, np.arange(400) % 2)
    kinds = {finding.kind: finding for finding in found}
    assert "puppy -> dog" in kinds["labels_implied"].items
    assert [set(members) for members in kinds["labels_exclusive"].items] == [{"clear", "haze", "rain"}]
    assert kinds["label_never"].items == ("none",)
    assert any("'once'" in line for line in kinds["labels_rare"].items)
    assert figures["counts"]["dog"] == int(free.sum())


def test_ids_in_series_are_noted_but_not_grouped(clean: Path) -> None:
    table = pd.read_csv(clean / "train.csv", dtype=str)
    table["id"] = [f"clip{row // 4}_{row:03d}" for row in range(len(table))]
    table.to_csv(clean / "train.csv", index=False)
    kinds = _kinds(_audit(clean))
    assert "10 series" in kinds["ids_in_series"].message
    assert "groups" not in kinds


@pytest.mark.parametrize("sample", [None, "absent.csv"])
def test_without_a_sample_the_rows_of_the_test_csv_are_checked(clean: Path, sample: str | None) -> None:
    (clean / "test/t003x.jpg").write_bytes(b"broken")
    given = {"sample_submission": sample, "labels": {"columns": list(LABELS)}}
    kinds = _kinds(_audit(clean, competition=given))
    assert "test_unreadable" in kinds
    assert ("sample_submission" in kinds) == (sample is not None)
    neither = _kinds(_audit(clean, competition={**given, "test": None}))
    assert "test images are not checked" in neither["sample_submission"].message


def test_the_remedy_for_copies_across_folds_names_the_groups_of_the_config(clean: Path) -> None:
    for number in range(6):
        image = _read(clean / f"train/t{2 * number:03d}x.jpg")
        _write(clean / f"train/t{2 * number + 13:03d}x.jpg", image, quality=90)
    alone = _kinds(_audit(clean))["duplicates_folds"].remedy
    assert "competition.groups: {images: near, turned: true}" in alone
    grouped = _kinds(_audit(clean, competition={"groups": {"column": "patient"}}))["duplicates_folds"].remedy
    assert "beside {column: patient}" in grouped


@pytest.mark.parametrize("bands", [1, 5])
def test_images_are_read_with_the_channels_and_window_of_the_config(clean: Path, bands: int) -> None:
    for part in ("train", "test"):
        for path in (clean / part).glob("*.jpg"):
            grey = _read(path).mean(axis=2).astype(np.float32) * 4 - 100
            Image.fromarray(grey).save(path, "TIFF") if bands == 1 else _write_bands(path, grey, bands)
    images = {"channels": 1 if bands == 1 else bands, "window": [-100, 1000]}
    assert not _audit(clean, images=images, competition={"groups": {"images": "near"}}).errors
    assert "train_unreadable" in _kinds(_audit(clean, images={"channels": images["channels"]}))


def _write_bands(path: Path, grey: np.ndarray, bands: int) -> None:
    assert cv2.imwritemulti(str(path.with_suffix(".tif")), [grey] * bands)
    path.with_suffix(".tif").replace(path)


@pytest.mark.parametrize("bits", [10, 12])
def test_images_of_16_bits_that_use_few_are_a_warning(clean: Path, bits: int) -> None:
    for part in ("train", "test"):
        for path in (clean / part).glob("*.jpg"):
            deep = _read(path)[:, :, 0].astype(np.uint16) << (bits - 8)
            assert cv2.imwrite(str(path.with_suffix(".png")), deep)
            path.unlink()
    warning = _kinds(_audit(clean, images={"channels": 1}))["few_bits"]
    assert (warning.level, warning.remedy) == ("warning", f"set images.window: [0, {(1 << bits) - 1}]")
    assert "few_bits" not in _kinds(_audit(clean, images={"channels": 1, "window": [0, (1 << bits) - 1]}))


def test_doubts_about_labels_are_warnings(clean: Path) -> None:
    table = pd.read_csv(clean / "train.csv", dtype=str)
    table["red"] = "-1"
    table.loc[:5, "red"] = "1"
    table.to_csv(clean / "train.csv", index=False)
    warning = _kinds(_audit(clean, competition={"labels": {"uncertain": "ignore"}}))["label_without_negative"]
    assert (warning.level, "labels.uncertain" in warning.remedy) == ("warning", True)
    assert "label_without_negative" not in _kinds(_audit(clean, competition={"labels": {"uncertain": "zeros"}}))


def test_pairs_of_a_hundred_thousand_labels_need_little_memory() -> None:
    targets = np.zeros((60, 100_000), np.int8)
    targets[:30, 70_000], targets[30:, 90_000] = 1, 1
    found, figures = label_findings(targets, [f"l{number}" for number in range(100_000)], None)
    by_kind = {each.kind: each for each in found}
    assert "2000 most frequent" in by_kind["labels_not_compared"].message
    assert [set(members) for members in by_kind["labels_exclusive"].items] == [{"l70000", "l90000"}]
    assert figures["counts"]["l70000"] == 30
