"""The captions of an image, and the sheet of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.report.figures import captions_for, draw_sheet, save_figure
from tests.report.simulated import HOSTILE


def test_captions_are_found_missed_or_wrong_most_probable_first() -> None:
    captions = captions_for(
        ["a", "b", "c", "d"],
        np.array([1, 1, 0, 0], dtype=np.uint8),
        np.array([0.9, 0.1, 0.95, 0.2]),
        np.array([0.5, 0.5, 0.5, 0.5]),
    )
    assert [caption.text for caption in captions] == ["c? 0.95", "a 0.90", "(b) 0.10"]
    assert [caption.verdict for caption in captions] == ["wrong", "found", "missed"]


def test_an_unknown_label_has_no_caption() -> None:
    captions = captions_for(["a", "b"], np.array([np.nan, 1.0]), np.array([0.9, 0.8]), np.array([0.5, 0.5]))
    assert [caption.text for caption in captions] == ["b 0.80"]


def test_a_sheet_of_grey_and_coloured_images_is_saved(tmp_path: Path) -> None:
    images = [np.full((16, 16, channels), 200, dtype=np.uint8) for channels in (1, 3, 3)]
    captions = [captions_for(["a"], np.ones(1, np.uint8), np.ones(1), np.ones(1)), [], []]
    path = tmp_path / "sheet.png"
    save_figure(draw_sheet(images, captions, columns=2), path)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_hostile_names_in_a_sheet_are_text_and_leave_room_for_the_image(tmp_path: Path) -> None:
    ones = np.ones(len(HOSTILE))
    captions = [captions_for(HOSTILE, ones.astype(np.uint8), ones, ones / 2), []]
    figure = draw_sheet([np.full((16, 16, 3), 0, dtype=np.uint8)] * 2, captions, columns=2)
    save_figure(figure, tmp_path / "sheet.png")
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{name} 1.00" for name in HOSTILE]
    assert all(axes.get_window_extent().height > 80 for axes in figure.axes)
