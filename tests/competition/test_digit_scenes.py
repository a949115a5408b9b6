from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from pipeline.competition.digit_scenes import (
    LABELS,
    SAMPLE_CSV,
    TEST_CSV,
    TRAIN_CSV,
    TRUTH_CSV,
    Scene,
    deal_sheets,
    draw_scene,
    make_digit_scenes,
    plan_scenes,
)
from pipeline.errors import CompetitionError

DIGITS = load_digits()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "digit_scenes"
    assert make_digit_scenes(folder, train=60, test=20)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_those_of_a_competition(root: Path) -> None:
    train, test = pd.read_csv(root / TRAIN_CSV), pd.read_csv(root / TEST_CSV)
    sample, truth = pd.read_csv(root / SAMPLE_CSV), pd.read_csv(root / TRUTH_CSV)
    assert list(train.columns) == ["id", "img_path", "sheet", *LABELS]
    assert list(test.columns) == ["id", "img_path"]
    assert list(sample.columns) == list(truth.columns) == ["id", *LABELS]
    assert train["id"].tolist() == [f"TRAIN_{number:04d}" for number in range(60)]
    assert test["id"].tolist() == sample["id"].tolist() == truth["id"].tolist()
    assert train["img_path"][7] == "./train/TRAIN_0007.png"
    assert test["img_path"][7] == "./test/TEST_0007.png"
    assert (sample[list(LABELS)] == 0).all(axis=None)
    for table in (train, truth):
        assert table[list(LABELS)].isin([0, 1]).all(axis=None)
        assert table[list(LABELS)].sum(axis=1).between(1, 5).all()
    images = set(root.rglob("*.png"))
    assert images == {root / name for name in (*train["img_path"], *test["img_path"])}


def test_an_image_is_its_scene_in_64_by_64_rgb(root: Path) -> None:
    for split in ("train", "test"):
        for scene in plan_scenes(split.upper(), 5):
            image = cv2.imread(str(root / split / f"{scene.id}.png"), cv2.IMREAD_UNCHANGED)
            assert image is not None
            np.testing.assert_array_equal(image[..., ::-1], draw_scene(scene))
            assert image.shape == (64, 64, 3)
            assert image.dtype == np.uint8


def test_the_tables_hold_the_drawn_digits(root: Path) -> None:
    for name, split, count in ((TRAIN_CSV, "TRAIN", 60), (TRUTH_CSV, "TEST", 20)):
        table = pd.read_csv(root / name, index_col="id")
        for scene in plan_scenes(split, count):
            written = [digit for digit, label in enumerate(LABELS) if table.loc[scene.id, label] == 1]
            assert written == sorted(DIGITS.target[list(scene.samples)])
            assert scene.labels == tuple(DIGITS.target[list(scene.samples)])
            if split == "TRAIN":
                assert table.loc[scene.id, "sheet"] == f"sheet_{scene.sheet:02d}"


def test_each_sheet_has_each_digit_and_each_handwritten_digit_is_on_one_sheet() -> None:
    sheets = deal_sheets()
    assert len(sheets) == 40
    for sheet in sheets:
        for digit, rows in enumerate(sheet):
            assert len(rows) >= 4
            assert (DIGITS.target[list(rows)] == digit).all()
    dealt = [row for sheet in sheets for rows in sheet for row in rows]
    assert sorted(dealt) == list(range(1797))


def test_the_test_has_other_handwriting_than_the_training() -> None:
    train, test = plan_scenes("TRAIN", 2000), plan_scenes("TEST", 500)
    assert len({scene.sheet for scene in train}) == 30
    assert len({scene.sheet for scene in test}) == 10
    assert not {scene.sheet for scene in train} & {scene.sheet for scene in test}
    sheets = deal_sheets()
    for scene in (*train, *test):
        on_sheet = {row for rows in sheets[scene.sheet] for row in rows}
        assert on_sheet.issuperset(scene.samples)


def test_label_frequencies_fall_by_the_stated_law() -> None:
    """Against the exact chances: all 1,024 sets of digits, of which those of 1 to 5 are kept."""
    law = np.arange(1, 11) ** -0.7
    sets = np.array(list(product([0, 1], repeat=10)))
    chance = np.prod(np.where(sets == 1, 0.75 * law, 1 - 0.75 * law), axis=1)
    kept = (sets.sum(axis=1) >= 1) & (sets.sum(axis=1) <= 5)
    expected = (chance[kept, None] * sets[kept]).sum(axis=0) / chance[kept].sum()
    np.testing.assert_allclose(expected / expected[0], law, rtol=0.07)  # redrawing hardly bends the law

    scenes = [*plan_scenes("TRAIN", 4000), *plan_scenes("TEST", 1000)]
    drawn = np.array([[digit in scene.labels for digit in range(10)] for scene in scenes])
    spread = np.sqrt(expected * (1 - expected) / len(scenes))
    assert (np.abs(drawn.mean(axis=0) - expected) < 3.5 * spread).all()
    assert set(drawn.sum(axis=1)) == {1, 2, 3, 4, 5}


def test_any_digit_may_cover_the_others() -> None:
    pairs = [scene.labels for scene in plan_scenes("TRAIN", 2000) if len(scene.labels) == 2]
    assert 0.4 < np.mean([first < second for first, second in pairs]) < 0.6


def test_a_digit_is_bright_and_14_to_26_px_over_a_dark_noisy_ground() -> None:
    extents = []
    for number in range(150):
        row = number * 11
        image = draw_scene(Scene(f"alone{number}", 0, (int(DIGITS.target[row]),), (row,))) / 255
        ground = np.median(image, axis=(0, 1))
        assert ground.max() < 0.4
        below = image < ground  # the digit only brightens, so the lower half of the noise is undisturbed
        assert np.sqrt((((image - ground) ** 2)[below]).mean()) == pytest.approx(0.08, abs=0.006)
        bright = image.max(axis=2) > 0.75
        extent = max(np.ptp(np.flatnonzero(bright.any(axis=axis))) + 1 for axis in (0, 1))
        assert 5 <= extent <= 26 * (np.cos(np.pi / 7.2) + np.sin(np.pi / 7.2))  # a square turned by 25°
        extents.append(extent)
    assert np.ptp(extents) >= 12


def test_every_call_makes_the_same_bytes_and_the_same_first_scenes(root: Path, tmp_path: Path) -> None:
    assert make_digit_scenes(tmp_path / "again", train=60, test=20)
    assert contents(tmp_path / "again") == contents(root)
    assert len(contents(root)) == 84
    assert plan_scenes("TRAIN", 50)[:20] == plan_scenes("TRAIN", 20)


def test_a_complete_competition_is_left_alone(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert make_digit_scenes(root, train=60, test=20) is False
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "empty"
    folder.mkdir(parents=True)
    assert make_digit_scenes(folder, train=4, test=2)
    assert [path.name for path in folder.parent.iterdir()] == ["empty"]  # nothing left beside it


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CompetitionError, match=r"missing or different: train\.csv, .* and 5 more"):
        make_digit_scenes(tmp_path, train=4, test=2)
    for path, message in (("notes.txt", "something else"), ("notes.txt/below", "cannot be written")):
        with pytest.raises(CompetitionError, match=message):
            make_digit_scenes(tmp_path / path, train=4, test=2)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_competition_that_lost_or_changed_a_file_is_refused(tmp_path: Path) -> None:
    make_digit_scenes(tmp_path / "scenes", train=4, test=2)
    with pytest.raises(CompetitionError, match=r"different: train\.csv, train/TRAIN_0004\.png\n"):
        make_digit_scenes(tmp_path / "scenes", train=5, test=2)
    (tmp_path / "scenes" / "test" / "TEST_0001.png").unlink()
    with pytest.raises(CompetitionError, match=r"different: test/TEST_0001\.png\n"):
        make_digit_scenes(tmp_path / "scenes", train=4, test=2)


def test_an_interrupted_build_never_looks_finished(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.competition.digit_scenes import make_digit_scenes;"
        "make_digit_scenes(Path(sys.argv[1]), train=2000, test=500)"
    )
    folder = tmp_path / "scenes"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    try:
        deadline = time.monotonic() + 30
        while sum(1 for _ in tmp_path.rglob("*.png")) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert sum(1 for _ in tmp_path.rglob("*.png")) >= 5
    assert not folder.exists()
    assert make_digit_scenes(folder, train=4, test=2)


def test_two_at_once_make_one_complete_competition(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make_digit_scenes(folder, train=30, test=10), range(4)))
    assert sum(made) == 1
    assert make_digit_scenes(folder, train=30, test=10) is False
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
