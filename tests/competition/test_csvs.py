"""CSVs as organisers write them: encodings, delimiters, quotes, unused columns."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from unicodedata import normalize

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.competition.csvs import Dialect, _split, guess_encoding, read_cells, read_table
from pipeline.errors import CompetitionError
from pipeline.events import notes_into


def _read(tmp_path: Path, data: bytes | str, dialect: Dialect | None = None) -> tuple[pd.DataFrame, list[str]]:
    path = tmp_path / "t.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    notes: list[str] = []
    listen = notes_into(notes)
    return read_table(path, id_column="id", key="k", dialect=dialect or Dialect(), listen=listen), notes


def test_korean_and_latin_tables_are_recognised_and_noted(tmp_path: Path) -> None:
    frame, notes = _read(tmp_path, "id,고양이,강아지\n001,1,0\n".encode("cp949"))
    assert list(frame.columns) == ["id", "고양이", "강아지"]
    assert "CP949" in notes[0]
    frame, notes = _read(tmp_path, "id,épée,Bär\n001,1,0\n".encode("latin-1"))
    assert list(frame.columns) == ["id", "épée", "Bär"]
    assert "Latin-1" in notes[0]


@pytest.mark.parametrize("text", ["뷁, 똠방각하와 고양이", "사람이 있음", "한"])
def test_korean_is_guessed(text: str) -> None:
    assert guess_encoding(text.encode("cp949")) == "cp949"


@pytest.mark.parametrize(
    "text", ["Ärger", "é", "señor Muñoz", "naïve café", "Übergrößenträger", "“quoted” – café", "Äußerung"]
)
def test_western_text_is_guessed(text: str) -> None:
    assert guess_encoding(text.encode("cp1252")) == "cp1252"


def test_bytes_that_windows_does_not_know_are_latin_1(tmp_path: Path) -> None:
    assert guess_encoding(b"caf\xe9 \x81 ") == "latin-1"


def test_a_given_encoding_is_taken_and_must_fit(tmp_path: Path) -> None:
    frame, notes = _read(tmp_path, "id,é\n1,0\n".encode("latin-1"), Dialect(encoding="latin-1"))
    assert (list(frame.columns), notes) == (["id", "é"], [])
    with pytest.raises(CompetitionError, match="not utf-8"):
        _read(tmp_path, "id,é\n1,0\n".encode("latin-1"), Dialect(encoding="utf-8"))


def test_utf_16_has_its_mark_and_other_zero_bytes_are_no_text(tmp_path: Path) -> None:
    frame, _ = _read(tmp_path, "id\ta\r\n1\t0\r\n".encode("utf-16"))
    assert frame.to_dict("list") == {"id": ["1"], "a": ["0"]}
    with pytest.raises(CompetitionError, match="not a text file"):
        _read(tmp_path, b"PK\x03\x04\0\0")


@pytest.mark.parametrize(("mark", "name"), [("\t", "tabs"), (";", "semicolons"), (",", "")])
def test_the_delimiter_is_the_one_that_gives_the_header_its_id(tmp_path: Path, mark: str, name: str) -> None:
    other = ";" if mark == "," else ","
    frame, notes = _read(tmp_path, f'id{mark}"a{mark}b"{mark}c{other}d\n01{mark}1{mark}0\n')
    assert list(frame.columns) == ["id", f"a{mark}b", f"c{other}d"]
    assert len(notes) == bool(name)
    assert name in "".join(notes)


def test_a_delimiter_may_be_set(tmp_path: Path) -> None:
    frame, _ = _read(tmp_path, "id|a\n1|0\n", Dialect(delimiter="|"))
    assert frame.to_dict("list") == {"id": ["1"], "a": ["0"]}


def test_an_index_column_trailing_commas_and_blank_rows_are_left_out_and_noted(tmp_path: Path) -> None:
    frame, notes = _read(tmp_path, ",id,a,,\n0,01,1,,\n1,02,0,,\n,,,,\n\n")
    assert frame.to_dict("list") == {"id": ["01", "02"], "a": ["1", "0"]}
    assert any("1 columns without a name" in note for note in notes)
    assert any("1 rows of blank cells" in note for note in notes)
    frame, _ = _read(tmp_path, "Unnamed: 0,id,a\n0,01,1,\n1,02,0,\n")  # trailing commas in the rows alone
    assert frame.to_dict("list") == {"id": ["01", "02"], "a": ["1", "0"]}


def test_commas_inside_header_names_quoted_or_not(tmp_path: Path) -> None:
    """ChestX-ray14's own header: `[Width,Height]` falls into two columns, in the rows as well."""
    text = "id,Labels,OriginalImage[Width,Height],Spacing[x,y],\n00000001_000.png,Hernia|Mass,2682,2749,0.143,0.143,\n"
    frame, _ = _read(tmp_path, text)
    assert list(frame.columns) == ["id", "Labels", "OriginalImage[Width", "Height]", "Spacing[x", "y]"]
    assert frame["y]"].tolist() == ["0.143"]
    frame, _ = _read(tmp_path, 'id,"Size[Width,Height]"\n1,"2,3"\n')
    assert frame.to_dict("list") == {"id": ["1"], "Size[Width,Height]": ["2,3"]}


def test_without_quoting_the_last_column_takes_the_rest(tmp_path: Path) -> None:
    text = 'id,Labels,Caption\n0.jpg,1,Woman, "smiling, outside.\n1.jpg,1 19,"A cat" on a mat\n2.jpg,3,plain\n'
    frame, _ = _read(tmp_path, text, Dialect(quoting="none"))
    assert frame["id"].tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert frame["Labels"].tolist() == ["1", "1 19", "3"]
    assert frame["Caption"].tolist() == ['Woman, "smiling, outside.', '"A cat" on a mat', "plain"]
    with pytest.raises(CompetitionError, match="quoting: none"):
        _read(tmp_path, text)


def test_a_cell_over_several_lines_is_noted(tmp_path: Path) -> None:
    frame, notes = _read(tmp_path, 'id,a,text\n1,0,"open\n2,1,x"\n')
    assert len(frame) == 1
    assert "span several lines" in notes[0]


def test_ids_lose_their_blanks_and_nothing_else(tmp_path: Path) -> None:
    frame, _ = _read(tmp_path, "id,a\n 007 ,1\n1.0,0\n")
    assert frame["id"].tolist() == ["007", "1.0"]
    with pytest.raises(CompetitionError, match="1 ids occur more than once"):
        _read(tmp_path, "id,a\n1,1\n1 ,0\n")


def test_cells_may_repeat_ids(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,a\n1,x\n1,y\n")
    assert len(read_cells(tmp_path / "t.csv", id_column="id", key="k")) == 2


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8).filter(
    lambda name: name.strip() and name != "id"
)


@settings(deadline=None, max_examples=50)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from([",", ";", "\t"]))
def test_what_pandas_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, names: list[str], mark: str) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    table = pd.DataFrame([["01", *names], ["02", *reversed(names)]], columns=["id", *names], dtype=str)
    table.to_csv(path, index=False, sep=mark)
    plain = table.map(partial(normalize, "NFC")).rename(columns=lambda name: normalize("NFC", name).strip())
    assume(plain.columns.is_unique)
    pd.testing.assert_frame_equal(read_table(path, id_column="id", key="k"), plain)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet='ab,"\r\n\x0b\x1c\x85\u2028'))
def test_lines_end_as_the_csv_module_ends_them(text: str) -> None:
    def read(rows: Iterable[list[str]]) -> list[list[str]] | str:
        try:
            return list(rows)
        except csv.Error as error:
            return str(error)

    expected = read(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert read(_split(text, ",", Dialect())) == expected


def test_a_wide_table_takes_few_bytes_per_cell(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(100)]
    text = "\n".join([",".join(["id", *names]), *(f"r{row}," + ",".join("01" * 50) for row in range(4000))])
    _read(tmp_path, text)  # imports
    tracemalloc.start()
    _read(tmp_path, text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 4000 * 100
