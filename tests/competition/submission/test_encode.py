"""Submissions: exactly the sample's rows and columns, and nothing invalid ever gets the name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.submission import (
    SubmissionFormat,
    SubmissionKind,
    asked_images,
    build_submission,
    check_sample,
    resolve_empty,
    submission_form,
    write_submission,
)
from pipeline.competition.submission.format import split_rows
from pipeline.competition.submission.sample import Sample
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.errors import CompetitionError, ConfigError, SubmissionError
from pipeline.events import ignore
from pipeline.thresholds.row_rules import RowRules, row_rules
from tests.competition.submission.examples import (
    DECISIONS,
    FORMS,
    IDS,
    LABELS,
    LONG,
    NAMES,
    PROBABILITIES,
    WIDE,
    write_example,
)

WRITTEN: dict[SubmissionKind, str] = {
    "wide_binary": "id,b,ETT - Abnormal\n02,0,1\n01,1,0\n3.1,0,0\n",
    "wide_probability": "id,b,ETT - Abnormal\n02,0,1\n01,0.5,0.25\n3.1,0.125,1e-12\n",
    "delimited": "Id,labels\n02,ETT - Abnormal\n01,b\n3.1,\n",
    "ranked": "Id,labels\n02,ETT - Abnormal|b\n01,b|ETT - Abnormal\n3.1,b|ETT - Abnormal\n",
    "long_binary": "row_id,fractured\n02_ETT - Abnormal,1\n02_b,0\n01_b,1\n01_ETT - Abnormal,0\n"
    "3.1_ETT - Abnormal,0\n3.1_b,0\n",
    "long_probability": "row_id,fractured\n02_ETT - Abnormal,1\n02_b,0\n01_b,0.5\n01_ETT - Abnormal,0.25\n"
    "3.1_ETT - Abnormal,1e-12\n3.1_b,0.125\n",
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_each_kind_is_the_samples_rows_and_columns(tmp_path: Path, kind: SubmissionKind) -> None:
    assert write_example(tmp_path, *FORMS[kind]).read_bytes() == WRITTEN[kind].encode()


def test_digits_are_decimals(tmp_path: Path) -> None:
    form = SubmissionFormat("wide_probability", LABELS, digits=3)
    assert write_example(tmp_path, WIDE, form).read_text().splitlines()[3] == "3.1,0.125,0.000"


def test_a_row_without_labels_gets_the_token(tmp_path: Path) -> None:
    form = SubmissionFormat("delimited", LABELS, "|", "No Finding")
    assert write_example(tmp_path, NAMES, form).read_text().endswith("3.1,No Finding\n")


def test_a_ranking_holds_the_k_best_and_ties_keep_the_label_order(tmp_path: Path) -> None:
    sample = Sample(Path("s.csv"), ("id", "t"), ("x",))
    form = SubmissionFormat("ranked", ("a", "b", "c", "d"), " ", k=3)
    scores = np.array([[0.5, 0.1, 0.9, 0.5]])
    frame = build_submission(sample, form, ids=["x"], probabilities=scores, decisions=np.zeros((1, 4), np.uint8))
    assert frame["t"].tolist() == ["c a d"]


def test_foreign_ids_and_columns_are_refused() -> None:
    form = SubmissionFormat("wide_binary", LABELS)
    with pytest.raises(CompetitionError, match="1 ids only in the sample"):
        build_submission(WIDE, form, ids=["01", "02", "x"], probabilities=PROBABILITIES, decisions=DECISIONS)
    with pytest.raises(SubmissionError, match="the columns are not the labels"):
        check_sample(NAMES, form)
    for kind in ("delimited", "ranked", "long_binary"):
        with pytest.raises(SubmissionError, match="one column beside"):
            check_sample(WIDE, SubmissionFormat(kind, LABELS))


def test_long_rows_are_split_at_the_label_whatever_the_ids_hold() -> None:
    form = SubmissionFormat("long_probability", ("any", "b_any", "sub_dural"), "_")
    keys = ("ID_12_any_any", "ID_b_any", "x_sub_dural")
    assert split_rows(replace(LONG, ids=keys), form) == (["ID_12_any", "ID", "x"], ["any", "b_any", "sub_dural"])
    assert asked_images(LONG, FORMS["long_binary"][1]) == ("02", "01", "3.1")
    with pytest.raises(SubmissionError, match=r"1 keys do not end in a label.*\n.*\n.*3.1_c"):
        asked_images(replace(LONG, ids=(*LONG.ids, "3.1_c")), FORMS["long_binary"][1])


def test_an_invalid_submission_never_gets_its_name(tmp_path: Path) -> None:
    form = SubmissionFormat("wide_probability", LABELS)
    broken = np.where(PROBABILITIES == 0.125, np.nan, PROBABILITIES)
    frame = build_submission(WIDE, form, ids=IDS, probabilities=broken, decisions=DECISIONS)
    path = tmp_path / "submission.csv"
    path.write_text("the last good one")
    with pytest.raises(SubmissionError, match="would be rejected"):
        write_submission(path, frame, WIDE, form, ignore)
    assert path.read_text() == "the last good one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_empty_policy_may_say() -> None:
    assert resolve_empty("none", LABELS, "wide_binary") == ("none", "")
    assert resolve_empty("argmax", LABELS, "delimited") == ("argmax", "")
    assert resolve_empty("b", LABELS, "wide_binary") == (1, "")
    assert resolve_empty("nothing", LABELS, "delimited") == ("none", "nothing")
    with pytest.raises(ConfigError, match="cannot be in a wide_binary"):
        resolve_empty("nothing", LABELS, "wide_binary")


def test_row_rules_name_labels_by_their_place() -> None:
    labels = {"exclusive": [["healthy", "scab"], ["rust", "healthy"]]}
    competition = CompetitionConfig.model_validate({"labels": labels})
    submission = SubmissionConfig(empty="scab", min_labels=1, max_labels=2)
    names = ("rust", "scab", "healthy")
    assert row_rules(submission, competition, names) == RowRules(1, 1, 2, ((2, 1), (0, 2)))
    assert row_rules(SubmissionConfig(), CompetitionConfig(), names).trivial
    with pytest.raises(ConfigError, match="min_labels=4, but there are 3"):
        row_rules(SubmissionConfig(min_labels=4), CompetitionConfig(), names)


@pytest.mark.parametrize(
    ("labels", "submission", "separator"),
    [
        ({"format": "delimited", "column": "t", "separator": "|"}, {"format": "delimited"}, "|"),
        ({"format": "delimited", "column": "t", "separator": "|"}, {"format": "ranked", "k": 1}, "|"),
        ({"format": "delimited", "column": "t"}, {"format": "delimited", "separator": ";"}, ";"),
        ({}, {"format": "delimited"}, " "),
        ({}, {"format": "long_binary"}, "_"),
        ({}, {"format": "long_probability", "separator": "-"}, "-"),
    ],
)
def test_the_separator_is_that_of_the_labels_unless_set(
    labels: dict[str, str], submission: dict[str, str], separator: str
) -> None:
    competition = CompetitionConfig.model_validate({"labels": labels})
    form = submission_form(SubmissionConfig.model_validate(submission), competition, ("a", "b"))
    assert form.separator == separator


def test_labels_that_hold_the_separator_are_refused_before_the_training() -> None:
    with pytest.raises(ConfigError, match=r"'ETT - Abnormal' cannot be in a delimited"):
        submission_form(SubmissionConfig(format="delimited"), CompetitionConfig(), LABELS)


def test_labels_with_names_of_their_own_are_written_as_the_training_cells_have_them(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("attribute_id,attribute_name\n0,country::france\n51,tag::cat\n147,tag::dog\n")
    names = {"file": "labels.csv", "key": "attribute_id", "value": "attribute_name"}
    labels = {"format": "delimited", "column": "attribute_ids", "names": names}
    competition = CompetitionConfig.model_validate({"root": str(tmp_path), "labels": labels})
    known = ("tag::cat", "country::france", "tag::dog")
    for spelling, cell in (("as_trained", "51 147"), ("names", "tag::cat tag::dog")):
        submission = SubmissionConfig.model_validate({"format": "delimited", "spelling": spelling})
        form = submission_form(submission, competition, known)
        sample = Sample(Path("s.csv"), ("id", "attribute_ids"), ("x",))
        decisions = np.array([[1, 0, 1]], dtype=np.uint8)
        frame = build_submission(
            sample, form, ids=["x"], probabilities=decisions.astype(np.float64), decisions=decisions
        )
        assert frame["attribute_ids"].tolist() == [cell]


@settings(deadline=None, max_examples=50)
@given(st.permutations(IDS), st.permutations(["b", "ETT - Abnormal"]))
def test_every_cell_follows_its_id_and_label(ids: list[str], columns: list[str]) -> None:
    sample = Sample(Path("s.csv"), ("id", *columns), tuple(ids))
    form = SubmissionFormat("wide_binary", LABELS)
    frame = build_submission(sample, form, ids=IDS, probabilities=PROBABILITIES, decisions=DECISIONS).set_index("id")
    for row, id_ in enumerate(IDS):
        for column, label in enumerate(LABELS):
            assert frame.loc[id_, label] == str(DECISIONS[row, column])
