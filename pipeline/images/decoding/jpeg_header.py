"""Reads the size of a JPEG from its header, faster than a library."""

from __future__ import annotations

from pipeline.images.geometry import Size

_APP1, _SCAN = 0xE1, 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # these hold the size; the three others hold tables
_FILL = 0xFF


def plain_size(data: bytes) -> Size | None:
    """(H, W) of a JPEG without EXIF or XMP, which might turn it.

    None for any other file and for a header that cannot be parsed: a library must read these.
    """
    size, place = None, 2
    while data.startswith(b"\xff\xd8") and place + 4 <= len(data) and data[place] == _FILL:
        marker = data[place + 1]
        if marker == _FILL:
            place += 1
            continue
        if marker == _SCAN:
            return size
        if marker == _APP1:
            return None
        if marker in _FRAMES:
            height, width = (int.from_bytes(data[start : start + 2], "big") for start in (place + 5, place + 7))
            size = (height, width) if height and width else None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
