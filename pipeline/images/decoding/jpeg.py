"""Decodes JPEGs with libjpeg's warnings as errors: a file that was cut and closed again is no whole image."""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

START, END = b"\xff\xd8\xff", b"\xff\xd9"
# The pixels are whole: bytes are left behind the last of them, or a marker of a program has an unknown version.
_HARMLESS = re.compile(r"extraneous bytes before marker 0xd9|Adobe|JFIF")


def decode_jpeg(data: bytes, *, grey: bool, scale: int) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3 or 1) of a JPEG at 1 / `scale` of its size, as stored; RGB, or grey.

    They equal those of OpenCV, as both use libjpeg-turbo, which OpenCV does not ask for its warnings.

    Returns:
        None where the colours are CMYK, or for a harmless warning: OpenCV can decode these.

    Raises:
        ValueError: the data are damaged or incomplete.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        cmyk = colours in ("CMYK", "YCCK")
        wanted = "CMYK" if cmyk else "GRAY" if grey else "RGB"
        size = {"min_height": -(-height // scale), "min_width": -(-width // scale)}
        pixels = simplejpeg.decode_jpeg(data, wanted, **size)
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            return None
        raise ValueError(f"a damaged JPEG: {error}") from error
    return None if cmyk else np.asarray(pixels, np.uint8)
