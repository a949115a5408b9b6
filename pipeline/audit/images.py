"""Findings on image files: broken, constant and odd ones, and differences between train and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.audit.findings import Finding, finding_if
from pipeline.images.image_stats import ImageStats

EXTREME_ASPECT = 3.0  # times longer than wide: resizing to a square then distorts more than any augmentation
# A shift of this size is visible by eye. Smaller ones have a low p-value as soon as there are many rows.
SHIFT, UNLIKELY = 0.1, 0.001


def broken_images(part: str, ids: Sequence[str], stats: Sequence[ImageStats], *, tolerated: bool) -> list[Finding]:
    """Images of `part` (train or test) that cannot be read: an error, or a warning if the config tolerates them."""
    bad = [f"{id_}: {image.problem}" for id_, image in zip(ids, stats, strict=True) if image.problem is not None]
    absent = [line for line in bad if line.endswith("does not exist")]
    others = [line for line in bad if not line.endswith("does not exist")]
    if part == "test" and len(absent) == len(ids):
        remedy = "fine where the test set is hidden; otherwise check competition.images"
        return finding_if(absent, "warning", "test_absent", "none of the {} test images is there (yet)", remedy)
    key = "images.broken: skip" if part == "train" else "predict.broken: fallback"
    remedy = f"copy or download them again, correct competition.images, or set {key}"
    level: Any = "warning" if tolerated else "error"
    return finding_if(absent, level, f"{part}_missing", f"{{}} {part} images do not exist", remedy) + finding_if(
        others, level, f"{part}_unreadable", f"{{}} {part} images are truncated or cannot be read", remedy
    )


def odd_images(part: str, ids: Sequence[str], stats: Sequence[ImageStats]) -> list[Finding]:
    """Readable images that are constant, far from square, or of another kind than most of them."""
    readable = [(id_, image) for id_, image in zip(ids, stats, strict=True) if image.problem is None]
    if not readable:
        return []
    constant = [id_ for id_, image in readable if image.constant]
    long = [
        f"{id_}: {image.width}x{image.height}"
        for id_, image in readable
        if max(image.width, image.height) > EXTREME_ASPECT * min(image.width, image.height)
    ]
    modes = Counter(image.mode for _, image in readable)
    usual = modes.most_common(1)[0][0]
    odd = [f"{id_}: {image.mode}" for id_, image in readable if image.mode != usual]
    found = finding_if(
        constant,
        "warning",
        f"{part}_constant",
        f"{{}} {part} images hold a single colour",
        "look at them; take broken ones out with competition.exclude" if part == "train" else "look at them",
    )
    found += finding_if(
        long,
        "note",
        f"{part}_aspect",
        f"{{}} {part} images are over {EXTREME_ASPECT:g} times longer than wide (images.fit: pad keeps their shape)",
    )
    counts = ", ".join(f"{mode} {count}" for mode, count in modes.most_common())
    found += finding_if(odd, "note", f"{part}_modes", f"{{}} {part} images differ in kind from the others: {counts}")
    if usual != "RGB":
        found.append(Finding("note", f"{part}_usual_mode", f"most {part} images are of the kind {usual}: {counts}"))
    return found


def shifts(train: Sequence[ImageStats], test: Sequence[ImageStats]) -> tuple[list[Finding], dict[str, Any]]:
    """Differences of train and test in size, aspect and brightness, by the two-sample Kolmogorov-Smirnov test.

    The distance is the largest difference of the two distribution functions, 0 to 1.
    """
    from scipy.stats import ks_2samp  # takes more than a second to import

    ours, theirs = (_measures([image for image in stats if image.problem is None]) for stats in (train, test))
    found: list[Finding] = []
    figures: dict[str, Any] = {}
    for name, values in ours.items():
        others = theirs[name]
        if not len(values) or not len(others):
            continue
        result = ks_2samp(values, others, method="asymp")
        distance, p_value = float(result.statistic), float(result.pvalue)
        medians = (float(np.median(values)), float(np.median(others)))
        figures[name] = {
            "distance": distance,
            "p_value": p_value,
            "median_train": medians[0],
            "median_test": medians[1],
        }
        if distance >= SHIFT and p_value < UNLIKELY:
            found.append(
                Finding(
                    "warning",
                    f"shift_{name}",
                    f"train and test differ in {name}: KS distance {distance:.2f} (p {p_value:.1g}), "
                    f"medians {medians[0]:.4g} and {medians[1]:.4g}",
                    "look at both; augment over the difference, or validate on rows that resemble the test set",
                )
            )
    return found, figures


def _measures(stats: Sequence[ImageStats]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "width": np.array([image.width for image in stats], float),
        "height": np.array([image.height for image in stats], float),
        "aspect": np.array([image.width / image.height for image in stats], float),
        "brightness": np.array([image.brightness for image in stats], float),
    }
