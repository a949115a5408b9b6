"""The built-in competition: scenes of real handwritten digits, so that a first run needs no download."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CompetitionError, listing
from pipeline.seeds import stable_seed

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The label of each digit; a scene's labels are the digits in it."""

TRAIN_CSV, TEST_CSV = "train.csv", "test.csv"
SAMPLE_CSV, TRUTH_CSV = "sample_submission.csv", "test_truth.csv"

SIDE = 64
SHEETS, TRAIN_SHEETS = 40, 30
MOST_DIGITS = 5
PROBABILITIES = 0.75 * np.arange(1, len(LABELS) + 1) ** -0.7
"""(10,) chance of each digit to be in a scene, before scenes of none or over `MOST_DIGITS` are redrawn."""

_NOISE = 0.08  # standard deviation, of the full range 1.0
_DIGIT_SIDES = (14, 26)
_MOST_DEGREES = 25.0


class Scene(NamedTuple):
    """One image to be drawn.

    Attributes:
        id: as in the CSV files.
        sheet: 0 to 39, the sheet of its digits.
        labels: its distinct digits in the order of drawing; later ones cover earlier ones.
        samples: the row of `load_digits` for each of them.
    """

    id: str
    sheet: int
    labels: tuple[int, ...]
    samples: tuple[int, ...]


def make_digit_scenes(root: Path, *, train: int = 2000, test: int = 500) -> bool:
    """Make the competition in the folder `root`, unless it is there already.

    A scene is a 64 × 64 RGB PNG of 1 to 5 distinct digits out of scikit-learn's 1,797 handwritten ones, each
    14 to 26 px large, turned by up to 25°, in a bright colour, free to overlap, over a dark colour with noise
    of standard deviation 0.08 of the full range. Its labels are its digits: digit d is in a scene with
    probability 0.75 (d + 1)^−0.7, independently of the others, and scenes of none or of more than five are
    redrawn. So zero is the most frequent label and nine the rarest.

    The handwritten digits are dealt into 40 sheets that have every digit each. A scene takes its digits from
    one sheet: 30 sheets make the training scenes, 10 others the test scenes. The column `sheet` is the group
    to keep together, so that validation, like the test, is on unseen handwriting.

    Files: `train.csv` (id, img_path, sheet, labels), `test.csv` (id, img_path), `sample_submission.csv` (id,
    labels, all 0), `test_truth.csv` (id, labels) and the images in `train/` and `test/`. The same counts give
    the same bytes every time, and the first scenes of a longer competition are those of a shorter one.

    Args:
        root: the folder; it is built beside its place and renamed when complete.
        train: number of training scenes.
        test: number of test scenes.

    Returns:
        True if the competition was made, False if it was there already, complete, with these counts.

    Raises:
        CompetitionError: `root` holds something else, or it cannot be written.
    """
    scenes = {"train": plan_scenes("TRAIN", train), "test": plan_scenes("TEST", test)}
    if _is_there(root, scenes):
        return False
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as workshop:
            building = Path(workshop) / root.name
            _build(building, scenes)
            if root.exists():
                root.rmdir()  # not every system renames onto an empty folder
            building.rename(root)
    except OSError as error:
        if _is_there(root, scenes):  # another process was faster
            return False
        raise CompetitionError(
            f"{root}: the digit scenes cannot be written",
            got=str(error),
            remedy="choose a writable folder as the competition's root, or free some space",
        ) from error
    return True


def plan_scenes(split: str, count: int) -> list[Scene]:
    """The first `count` scenes of the split TRAIN or TEST, without drawing them: ids, sheets and digits."""
    first, last = {"TRAIN": (0, TRAIN_SHEETS), "TEST": (TRAIN_SHEETS, SHEETS)}[split]
    sheets = deal_sheets()
    scenes = []
    for number in range(count):
        name = f"{split}_{number:04d}"
        rng = _generator("plan", name)
        sheet = int(rng.integers(first, last))
        labels = _draw_labels(rng)
        samples = tuple(int(rng.choice(sheets[sheet][label])) for label in labels)
        scenes.append(Scene(name, sheet, labels, samples))
    return scenes


@cache
def deal_sheets() -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The 4 or 5 rows of `load_digits` for each of the 40 sheets and each digit."""
    rng = _generator("sheets")
    digits = _handwriting()[1]
    rows_of_digit = [rng.permutation(np.flatnonzero(digits == digit)) for digit in range(len(LABELS))]
    return tuple(tuple(tuple(rows[sheet::SHEETS].tolist()) for rows in rows_of_digit) for sheet in range(SHEETS))


@cache
def _handwriting() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits: ink (1797, 8, 8) from 0 to 1, and the digit (1797,) each one is."""
    from sklearn.datasets import load_digits  # the import takes two seconds; only the making of scenes needs it

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def _draw_labels(rng: np.random.Generator) -> tuple[int, ...]:
    """1 to `MOST_DIGITS` distinct digits in a random order, so that each may cover the others."""
    while True:
        present = np.flatnonzero(rng.random(len(LABELS)) < PROBABILITIES)
        if 1 <= len(present) <= MOST_DIGITS:
            return tuple(rng.permutation(present).tolist())


def draw_scene(scene: Scene) -> NDArray[np.uint8]:
    """The scene as RGB (64, 64, 3)."""
    rng = _generator("draw", scene.id)
    image: NDArray[np.float64] = rng.uniform(0.16, 0.34, 3) + rng.normal(0, _NOISE, (SIDE, SIDE, 3))
    for sample in scene.samples:
        ink = _place(_handwriting()[0][sample], rng)[..., None]  # (H, W, 1)
        image += ink * (_bright_colour(rng) - image)
    pixels: NDArray[np.uint8] = np.round(image.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _place(ink: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """The opacity (64, 64), 0 to 1, of a digit's ink (8, 8) that is resized, turned and put at a random place."""
    side = rng.integers(_DIGIT_SIDES[0], _DIGIT_SIDES[1], endpoint=True)
    degrees = rng.uniform(-_MOST_DEGREES, _MOST_DEGREES)
    matrix = np.asarray(cv2.getRotationMatrix2D((3.5, 3.5), degrees, side / 8), dtype=np.float64)
    matrix[:, 2] += rng.uniform(side / 2, SIDE - side / 2, 2) - 4
    smooth = cv2.warpAffine(ink, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
    stroke = ((smooth.astype(np.float64) - 0.25) / 0.5).clip(0, 1)  # pen-like: thin, with soft edges
    opaque: NDArray[np.float64] = stroke * stroke * (3 - 2 * stroke)
    return opaque


def _bright_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """RGB of any hue, light and moderately saturated."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.3, 0.75), rng.uniform(0.85, 1)
    distance = np.abs((hue - np.array([0, 2, 4]) + 3) % 6 - 3)  # of the hue from red, green and blue
    colour: NDArray[np.float64] = value * (1 - saturation * (distance - 1).clip(0, 1))
    return colour


def _png(image: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(".png", image[..., ::-1])
    assert done
    return encoded.tobytes()


def _generator(*parts: int | str) -> np.random.Generator:
    return np.random.default_rng(stable_seed("digit scenes", *parts))


def _build(folder: Path, scenes: dict[str, list[Scene]]) -> None:
    for split, of_split in scenes.items():
        (folder / split).mkdir(parents=True)
        for scene in of_split:
            (folder / _image(split, scene)).write_bytes(_png(draw_scene(scene)))
    for name, text in _tables(scenes).items():
        (folder / name).write_bytes(text.encode())


def _is_there(root: Path, scenes: dict[str, list[Scene]]) -> bool:
    """Whether `root` holds exactly these scenes. Raises CompetitionError if it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    wrong = [
        name
        for name, text in _tables(scenes).items()
        if not (root / name).is_file() or (root / name).read_bytes() != text.encode()
    ]
    images = [_image(split, scene) for split, of_split in scenes.items() for scene in of_split]
    wrong += [name for name in images if not (root / name).is_file()]
    if wrong:
        raise CompetitionError(
            f"{root}: there is something else in the folder of the digit scenes",
            expected=f"nothing, or all files of {' + '.join(str(len(s)) for s in scenes.values())} scenes",
            got=f"missing or different: {listing(wrong)}",
            remedy="choose another folder as the competition's root, or delete this one",
        )
    return True


def _tables(scenes: dict[str, list[Scene]]) -> dict[str, str]:
    """{name: text} of each CSV file."""
    train, test = scenes["train"], scenes["test"]
    return {
        TRAIN_CSV: _csv(
            ("id", "img_path", "sheet", *LABELS),
            ((s.id, f"./{_image('train', s)}", f"sheet_{s.sheet:02d}", *_multi_hot(s)) for s in train),
        ),
        TEST_CSV: _csv(("id", "img_path"), ((s.id, f"./{_image('test', s)}") for s in test)),
        SAMPLE_CSV: _csv(("id", *LABELS), ((s.id, *[0] * len(LABELS)) for s in test)),
        TRUTH_CSV: _csv(("id", *LABELS), ((s.id, *_multi_hot(s)) for s in test)),
    }


def _image(split: str, scene: Scene) -> str:
    return f"{split}/{scene.id}.png"


def _multi_hot(scene: Scene) -> list[int]:
    return [int(digit in scene.labels) for digit in range(len(LABELS))]


def _csv(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in (header, *rows))
