"""Each label format on files written by hand, with the quirks of the competitions they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import CompetitionError
from tests.competition.labels.competition import read, read_noted

NAN = np.nan


def test_wide_cells_may_be_integers_or_their_floats(tmp_path: Path) -> None:
    table = read(tmp_path, {"columns": ["b", "ETT - A"]}, {"train.csv": "id,ETT - A,b\nx,1,1.0\ny,0.0, 0\n"})
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, 0]])
    with pytest.raises(CompetitionError, match="label columns are missing: c"):
        read(tmp_path, {"columns": ["b", "c"]}, {})


@pytest.mark.parametrize("cell", ["", "2", "-1", "0.5", "yes", "nan"])
def test_other_wide_cells_are_named_by_id_and_label(tmp_path: Path, cell: str) -> None:
    with pytest.raises(CompetitionError, match=f"y/a = '{cell}'"):
        read(tmp_path, {"columns": ["a"]}, {"train.csv": f"id,a\nx,0\ny,{cell}\n"})


def test_labels_of_numbers_are_sorted_by_value(tmp_path: Path) -> None:
    table = read(tmp_path, {"format": "delimited", "column": "tags"}, {"train.csv": "id,tags\n1,25 2\n2,0\n"})
    assert table.labels == ("0", "2", "25")


def test_chest_xrays_names_joined_by_bars_with_a_token_for_none(tmp_path: Path) -> None:
    train = (
        "Image Index,Finding Labels,Patient ID,OriginalImage[Width,Height],\n"
        "00000001_000.png,Cardiomegaly|Emphysema,1,2682,2749,\n"
        "00000002_000.png,No Finding,2,2500,2048,\n"
    )
    labels = {"format": "delimited", "column": "Finding Labels", "separator": "|", "empty_tokens": ["No Finding"]}
    table, notes = read_noted(tmp_path, labels, {"train.csv": train}, id="Image Index")
    assert table.labels == ("Cardiomegaly", "Emphysema")
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, 0]])
    assert "columns that are not labels: Patient ID, OriginalImage[Width, Height]" in notes


def test_a_token_for_none_beside_names_is_noted(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "tags", "empty_tokens": ["none"]}
    table, notes = read_noted(tmp_path, labels, {"train.csv": "id,tags\n1,none cat\n2,none\n"})
    np.testing.assert_array_equal(table.targets, [[1], [0]])
    assert "1 cells hold names beside a token" in notes


def test_numbers_get_their_names_from_a_second_csv(tmp_path: Path) -> None:
    files = {
        "train.csv": "id,attribute_ids\na,25 2\nb,2\n",
        "labels.csv": "attribute_id,attribute_name\n0,culture::abruzzi\n2,country::한국\n25,tag::bull\n",
    }
    names = {"file": "labels.csv", "key": "attribute_id", "value": "attribute_name"}
    labels = {"format": "delimited", "column": "attribute_ids", "names": names}
    table = read(tmp_path, labels, files)
    assert table.labels == ("culture::abruzzi", "country::한국", "tag::bull")
    np.testing.assert_array_equal(table.targets, [[0, 1, 1], [0, 1, 0]])
    with pytest.raises(CompetitionError, match="the first is '7' of 'a'"):
        read(tmp_path, labels, {"train.csv": "id,attribute_ids\na,7\n"})
    with pytest.raises(CompetitionError, match="its own name"):
        read(tmp_path, labels, {"labels.csv": "attribute_id,attribute_name\n2,x\n7,x\n"})


def test_cells_that_are_python_or_json_lists(tmp_path: Path) -> None:
    train = """id,tags\n1,"['cat', 'big dog']"\n2,"[""cat""]"\n3,[]\n4,\n"""
    table = read(tmp_path, {"format": "delimited", "column": "tags", "cells": "list"}, {"train.csv": train})
    assert table.labels == ("big dog", "cat")
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, 1], [0, 0], [0, 0]])
    with pytest.raises(CompetitionError, match="cells: list"):
        read(tmp_path, {"format": "delimited", "column": "tags"}, {})
    glued = """id,tags\n1,"['cat' 'dog']"\n"""
    with pytest.raises(CompetitionError, match="without a comma between them"):
        read(tmp_path, {"format": "delimited", "column": "tags", "cells": "list"}, {"train.csv": glued})


@pytest.mark.parametrize("cell", ["[['a']]", "[None]", "[1.5]", "[True]", "['a'", "['']", "[" * 5000])
def test_other_lists_are_refused(tmp_path: Path, cell: str) -> None:
    labels = {"format": "delimited", "column": "tags", "cells": "list"}
    with pytest.raises(CompetitionError, match="the labels of '1' are not written as a list"):
        read(tmp_path, labels, {"train.csv": f'id,tags\n1,"{cell}"\n'})


def test_a_wrong_separator_is_noted(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "tags"}
    _, notes = read_noted(tmp_path, labels, {"train.csv": "id,tags\n1,cat|dog\n2,dog\n"})
    assert "no cell of column 'tags' holds the separator ' ', but some hold '|'" in notes


def test_a_blank_delimited_cell_may_be_unknown(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "tags", "missing": "ignore"}
    table, notes = read_noted(tmp_path, labels, {"train.csv": "id,tags\n1,cat\n2,\n"})
    np.testing.assert_array_equal(table.targets, [[1], [NAN]])
    assert "nothing is known of 1 rows" in notes


def test_a_wide_sample_orders_the_labels_of_any_format(tmp_path: Path) -> None:
    files = {"train.csv": "id,tags\n1,a b\n", "sample_submission.csv": "id,b,c,a\n9,0,0,0\n"}
    table = read(tmp_path, {"format": "delimited", "column": "tags"}, files)
    assert table.labels == ("b", "c", "a")
    np.testing.assert_array_equal(table.targets, [[1, 0, 1]])
    with pytest.raises(CompetitionError, match="unknown label 'nothing'"):
        read(tmp_path, {"format": "delimited", "column": "tags"}, {"train.csv": "id,tags\n1,a\n2,nothing\n"})


def test_listed_classes_are_the_labels(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "tags", "classes": ["z", 1]}
    table = read(tmp_path, labels, {"train.csv": "id,tags\n1,1\n"})
    assert (table.labels, table.targets.tolist()) == (("z", "1"), [[0, 1]])
    with pytest.raises(CompetitionError, match="unknown label 'y'"):
        read(tmp_path, labels, {"train.csv": "id,tags\n1,y\n"})


HEMORRHAGE = """ID,Label
ID_12cadc6af_epidural,0
ID_12cadc6af_any,1
ID_12cadc6af_intraparenchymal,1
ID_38fd7baa0_epidural,0
ID_38fd7baa0_any,0
ID_38fd7baa0_intraparenchymal,0
ID_38fd7baa0_epidural,0
"""


def test_long_rows_of_ids_that_hold_the_separator_and_repeat(tmp_path: Path) -> None:
    labels = {"format": "long", "column": "Label", "separator": "_"}
    table, notes = read_noted(tmp_path, labels, {"train.csv": HEMORRHAGE}, id="ID")
    assert table.ids == ("ID_12cadc6af", "ID_38fd7baa0")
    assert table.labels == ("any", "epidural", "intraparenchymal")
    np.testing.assert_array_equal(table.targets, [[1, 0, 1], [0, 0, 0]])
    assert "1 rows repeat another row" in notes
    with pytest.raises(CompetitionError, match="ID_12cadc6af/any: '1' and '0'"):
        read(tmp_path, labels, {"train.csv": HEMORRHAGE + "ID_12cadc6af_any,0\n"}, id="ID")


def test_labels_that_hold_the_separator_are_found_or_given(tmp_path: Path) -> None:
    text = "id,v\n" + "".join(f"x_{i}_{label},1\n" for i in "pqr" for label in ("a_left", "b", "c_left"))
    assert read(tmp_path, {"format": "long", "column": "v"}, {"train.csv": text}).ids == ("x_p", "x_q", "x_r")
    given = {"format": "long", "column": "v", "classes": ["c_left", "b", "a_left"]}
    assert read(tmp_path, given, {}).labels == ("c_left", "b", "a_left")


def test_a_long_table_that_can_be_split_in_two_ways_asks(tmp_path: Path) -> None:
    text = "id,v\n" + "".join(f"{who}_{eye}_{label},1\n" for who in "pq" for eye in "lr" for label in "ab")
    with pytest.raises(CompetitionError, match=r"labels\.classes") as caught:
        read(tmp_path, {"format": "long", "column": "v"}, {"train.csv": text})
    assert "2 labels (a, b); 4 labels (l_a, l_b, r_a and 1 more)" in str(caught.value)
    assert read(tmp_path, {"format": "long", "column": "v", "classes": ["a", "b"]}, {}).ids == (
        "p_l",
        "p_r",
        "q_l",
        "q_r",
    )


def test_a_label_that_ends_another_counts_only_where_the_longer_does_not_fit(tmp_path: Path) -> None:
    labels = {"format": "long", "column": "v", "classes": ["left", "far_left"]}
    table, notes = read_noted(tmp_path, labels, {"train.csv": "id,v\nx_left,1\nx_far_left,0\n"})
    assert (table.ids, table.targets.tolist()) == (("x",), [[1, 0]])
    assert "1 keys end in two labels, and the longer counts: x_far_left" in notes


def test_a_label_without_a_row_is_missing(tmp_path: Path) -> None:
    text = "id,v\nx_a,1\nx_b,0\ny_a,0\n"
    labels = {"format": "long", "column": "v", "classes": ["a", "b"]}
    with pytest.raises(CompetitionError, match="y/b, which has no row"):
        read(tmp_path, labels, {"train.csv": text})
    table = read(tmp_path, {**labels, "missing": "ignore"}, {})
    np.testing.assert_array_equal(table.targets, [[1, 0], [0, NAN]])
    with pytest.raises(CompetitionError, match="2 keys do not end in a label"):
        read(tmp_path, labels, {"train.csv": text + "z_c,1\n_a,1\n"})


def test_positives_in_two_columns_with_boxes_that_differ(tmp_path: Path) -> None:
    text = "image_id,class_name,x_min,site\ni1,Mass,3,A\ni1,Mass,9,A\ni1,Edema,,A\ni2,No finding,,B\n"
    labels = {"format": "long", "label_column": "class_name", "empty_tokens": ["No finding"]}
    table, notes = read_noted(tmp_path, labels, {"train.csv": text}, id="image_id", groups={"column": "site"})
    assert (table.ids, table.labels, table.groups) == (("i1", "i2"), ("Edema", "Mass"), ("A", "B"))
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, 0]])
    assert "differ between the rows of an image are ignored: x_min" in notes
    assert "1 rows repeat" in notes


def test_masks_say_present_and_blanks_absent(tmp_path: Path) -> None:
    text = "Image_Label,EncodedPixels\na.jpg_Fish,264918 937 266318 937\na.jpg_Sugar,\nb.jpg_Fish,-1\nb.jpg_Sugar,1 1\n"
    labels = {"format": "long", "column": "EncodedPixels", "filled": True, "empty_tokens": ["-1"]}
    table = read(tmp_path, labels, {"train.csv": text}, id="Image_Label")
    assert (table.ids, table.labels) == (("a.jpg", "b.jpg"), ("Fish", "Sugar"))
    np.testing.assert_array_equal(table.targets, [[1, 0], [0, 1]])
    with pytest.raises(CompetitionError, match=r"labels\.filled: true") as caught:
        read(tmp_path, {"format": "long", "column": "EncodedPixels"}, {}, id="Image_Label")
    assert "labels.columns" not in str(caught.value)


def test_numbers_beside_names_are_noted(tmp_path: Path) -> None:
    text = "id,labels\n1,U+304C 1231 3465 U+306B 53 20\n2,\n"
    labels = {"format": "delimited", "column": "labels"}
    _, notes = read_noted(tmp_path, labels, {"train.csv": text})
    assert "4 of 6 labels are numbers" in notes
    _, notes = read_noted(tmp_path, labels, {"train.csv": "id,labels\n1,3 5\n"})
    assert "are numbers" not in notes


def test_two_columns_with_values(tmp_path: Path) -> None:
    text = "id,what,value\n1,a,0.7\n1,b,-1\n2,a,0\n2,b,1\n"
    labels = {"format": "long", "label_column": "what", "column": "value", "soft": True, "uncertain": "ignore"}
    table = read(tmp_path, labels, {"train.csv": text})
    np.testing.assert_array_equal(table.targets, np.array([[0.7, NAN], [0, 1]], dtype=np.float32))


COCO: dict[str, Any] = {
    "info": {"year": 2014},
    "images": [
        {"id": 57870, "file_name": "COCO_train2014_000000057870.jpg", "width": 640, "height": 480},
        {"id": 9, "file_name": "sub/empty.v2.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 57870, "category_id": 90, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 57870, "category_id": 90},
        {"id": 3, "image_id": 57870, "category_id": 1},
    ],
    "categories": [{"id": 90, "name": "tooth brush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
}


def test_coco_with_gaps_in_the_ids_and_an_image_without_objects(tmp_path: Path) -> None:
    files = {"train.json": json.dumps(COCO)}
    table, notes = read_noted(tmp_path, {"format": "coco"}, files, train="train.json")
    assert table.labels == ("person", "stop sign", "tooth brush")
    assert table.ids == ("COCO_train2014_000000057870.jpg", "sub/empty.v2.jpg")
    np.testing.assert_array_equal(table.targets, [[1, 0, 1], [0, 0, 0]])
    assert "1 images have no object" in notes
    stems = read(tmp_path, {"format": "coco", "key": "stem"}, {}, train="train.json", images={"column": "file_name"})
    assert stems.ids == ("COCO_train2014_000000057870", "empty.v2")
    assert stems.paths[1] == (tmp_path / "sub/empty.v2.jpg",)
    assert read(tmp_path, {"format": "coco", "key": "id"}, {}, train="train.json").ids == ("57870", "9")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"images": [*COCO["images"], COCO["images"][0]]}, "the image ids are not all distinct"),
        ({"categories": [*COCO["categories"], {"id": 5, "name": "person"}]}, "the category names"),
        ({"annotations": [{"image_id": 1, "category_id": 90}]}, "1 unknown image ids: 1"),
        ({"annotations": [{"image_id": 9, "category_id": 2}]}, "1 unknown category ids: 2"),
        ({"categories": []}, "unknown category ids"),
        ({"images": [], "annotations": []}, "no images in it"),
        ({"images": None}, "not a COCO annotation file"),
        ({"images": [{"id": 1}]}, "images.0.file_name: Field required"),
    ],
)
def test_each_broken_annotation_file_has_its_message(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    with pytest.raises(CompetitionError, match="remedy") as caught:
        read(tmp_path, {"format": "coco"}, {"train.json": json.dumps({**COCO, **change})}, train="train.json")
    assert part in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="not a COCO annotation file"):
        read(tmp_path, {"format": "coco"}, {"train.csv": "id,a\n1,0\n"})


VOC = {
    "Main/aeroplane_trainval.txt": "000005 -1\n000007  1\n000009  0\n",
    "Main/bicycle_trainval.txt": "000005  1\n000007 -1\n000009 -1\n",
    "Main/bicycle_train.txt": "000005  1\n",
    "Main/trainval.txt": "000005\n000007\n000009\n",
}


def test_voc_class_files_where_difficult_is_unknown(tmp_path: Path) -> None:
    table, notes = read_noted(tmp_path, {"format": "voc"}, VOC, train="Main")
    assert (table.ids, table.labels) == (("000005", "000007", "000009"), ("aeroplane", "bicycle"))
    np.testing.assert_array_equal(table.targets, [[0, 1], [1, 0], [NAN, 0]])
    assert "uncertain label cells: 0 count as positive, 0 as negative, 1 as unknown" in notes
    ones = read(tmp_path, {"format": "voc", "uncertain": {"default": "zeros", "aeroplane": "ones"}}, {}, train="Main")
    np.testing.assert_array_equal(ones.targets, [[0, 1], [1, 0], [1, 0]])


def test_broken_class_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="no file of the form"):
        read(tmp_path, {"format": "voc", "split": "val"}, VOC, train="Main")
    with pytest.raises(CompetitionError, match="000009/bicycle has no line"):
        read(tmp_path, {"format": "voc"}, {"Main/bicycle_trainval.txt": "000005 1\n000007 -1\n"}, train="Main")
    for line in ("000005\n", "000005 2\n", "000005 1\n000005 1\n"):
        with pytest.raises(CompetitionError, match=r"not a VOC class file|occurs twice"):
            read(tmp_path, {"format": "voc"}, {"Main/bicycle_trainval.txt": line}, train="Main")


def test_a_list_of_positive_ids_per_class(tmp_path: Path) -> None:
    files = {
        "train.csv": "id,site\n01,A\n02.jpg,B\n",
        "lists/cat.txt": "id\n01\n\n02.jpg\n",
        "lists/dog [old].txt": "02.jpg\n77\n",
        "lists/eel.txt": "",
    }
    table, notes = read_noted(tmp_path, {"format": "per_class", "files": "lists/{label}.txt"}, files)
    assert table.labels == ("cat", "dog [old]", "eel")
    np.testing.assert_array_equal(table.targets, [[1, 0, 0], [1, 1, 0]])
    assert re.search("1 ids are not in .*: 77", notes)
    with pytest.raises(CompetitionError, match="none of its 1 ids"):
        read(tmp_path, {"format": "per_class", "files": "lists/{label}.txt"}, {"lists/cat.txt": "1\n"})
    with pytest.raises(CompetitionError, match="no file of the form"):
        read(tmp_path, {"format": "per_class", "files": "list/{label}.txt"}, {})


def test_columns_that_groups_are_read_from_are_not_noted_as_unused(tmp_path: Path) -> None:
    groups = [{"column": "patient"}, {"chunks": 2, "within": "site"}]
    files = {"train.csv": "id,a,patient,site,age\n1,0,p,s,3\n2,1,q,s,4\n"}
    _, notes = read_noted(tmp_path, {"columns": ["a"]}, files, groups=groups)
    assert notes.endswith(": columns that are not labels: age")
