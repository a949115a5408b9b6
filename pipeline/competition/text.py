"""From bytes to text: the encoding of an organiser's file, as told or as found."""

from __future__ import annotations

import codecs
from pathlib import Path

from pipeline.competition.notes import Tell
from pipeline.errors import CompetitionError

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ENCODING_NAMES = {"cp949": "CP949 (Korean)", "cp1252": "Windows-1252 (Latin-1)", "latin-1": "Latin-1"}


def read_text(path: Path, *, key: str, encoding: str | None, tell: Tell) -> str:
    """The text of a file, without a byte order mark.

    Args:
        path: the file.
        key: the config key that names it, for the remedy.
        encoding: its encoding; None to find it: UTF-8, otherwise CP949 or Latin-1, which `tell` hears.
        tell: hears one sentence where the encoding was guessed.

    Raises:
        CompetitionError: missing, unreadable, not in the given encoding, or not text.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CompetitionError(
            f"{path}: no such file", remedy=f"put the file there, or correct competition.root or {key}"
        ) from None
    except OSError as error:
        raise CompetitionError(
            f"{path}: not readable: {error.strerror}", remedy=f"check the file or correct {key}"
        ) from None
    text = _decode(data, path, encoding, tell)
    if "\0" in text:
        raise CompetitionError(
            f"{path}: not a text file, it holds zero bytes", remedy=f"save the table as CSV in UTF-8, or correct {key}"
        )
    return text.removeprefix("\ufeff")


def _decode(data: bytes, path: Path, encoding: str | None, tell: Tell) -> str:
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding or marked)
    except UnicodeError as error:
        if encoding is not None or marked != "utf-8":
            raise CompetitionError(
                f"{path}: not {encoding or marked}: {error}", remedy="set competition.encoding, or save it as UTF-8"
            ) from None
    found = guess_encoding(data)
    tell(f"{path} is not UTF-8 and was read as {_ENCODING_NAMES[found]}; competition.encoding sets another")
    return data.decode(found)


def guess_encoding(data: bytes) -> str:
    """`cp949`, `cp1252` or `latin-1`, for bytes that are not UTF-8.

    Accented Latin letters stand alone among ASCII, so that as Korean they break off or give syllables outside the
    2,350 common ones of KS X 1001; Korean text is made of these nearly throughout.
    """
    try:
        letters = [letter for letter in data.decode("cp949") if not letter.isascii()]
    except UnicodeDecodeError:
        letters = []
    common = sum(_is_common_syllable(letter) for letter in letters)
    if letters and 2 * common >= len(letters):
        return "cp949"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes are no character there
        return "latin-1"
    return "cp1252"


def _is_common_syllable(letter: str) -> bool:
    if not "가" <= letter <= "힣":
        return False
    return len(letter.encode("euc_kr")) == 2  # the others are spelled in eight bytes
