from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from numpy.typing import NDArray

from pipeline.competition.folds import ALWAYS_TRAIN, fold_table, read_fold_file, stratified_folds
from pipeline.competition.folds.deal import deal_folds
from pipeline.competition.folds.stratify import _even_out, _stratify_large
from pipeline.competition.table import TrainTable
from pipeline.config import check_config
from pipeline.errors import FoldError

Problem = tuple[list[str], NDArray[np.int64], list[str], list[str] | None, int]


@st.composite
def problems(draw: st.DrawFn, *, grouped: bool | None = None) -> Problem:
    """Ids, targets, labels, groups or None, and a number of folds that fits them."""
    rows, columns = draw(st.integers(2, 60)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    targets = (rng.random((rows, columns)) < rng.choice([0.02, 0.2, 0.7], columns)).astype(np.int64)
    ids = [f"img{number}" for number in rng.permutation(rows)]
    labels = [f"label{number}" for number in rng.permutation(columns)]
    groups = None
    if grouped if grouped is not None else draw(st.booleans()):
        names = draw(st.integers(2, rows))
        numbers = np.append(np.arange(names), rng.geometric(0.3, rows - names) % names)
        groups = [f"patient{number}" for number in rng.permutation(numbers)]
    count = draw(st.integers(2, min(6, len(set(groups or ids)))))
    return ids, targets, labels, groups, count


def simulated_patients(seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    """3,255 groups of 1 to 172 rows, near 30,000, whose rows share much of their 11 labels."""
    rng = np.random.default_rng(seed)
    sizes = np.clip(np.round(rng.lognormal(1.3, 1.35, 3255)), 1, 172).astype(np.int64)
    sizes[0] = 172
    number = np.repeat(np.arange(len(sizes)), sizes)
    shares = np.geomspace(0.003, 0.6, 11)
    log_odds = 1.25 * np.log(shares / (1 - shares)) + rng.normal(0, 1.3, (len(sizes), 11))
    targets = rng.random((len(number), 11)) < 1 / (1 + np.exp(-log_odds[number]))
    return [f"patient{n}" for n in number], targets.astype(np.int64)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def library_folds(positive: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.int64]:
    folds = np.empty(len(positive), dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    for fold, (_, validation) in enumerate(splitter.split(positive, positive)):
        folds[validation] = fold
    return folds


@settings(deadline=None)
@given(problems(grouped=False), st.integers(0, 2**32 - 1))
def test_the_stratification_equals_the_library(problem: Problem, seed: int) -> None:
    _, targets, _, _, count = problem
    positive = targets > 0
    # the library refuses a single column; a label without positives changes nothing
    expected = library_folds(np.column_stack([positive, np.zeros(len(positive), bool)]), count, seed)
    np.testing.assert_array_equal(_stratify_large(positive, count, seed), expected)


def test_many_rare_labels_are_dealt_as_by_the_library() -> None:
    positive = np.random.default_rng(0).random((2000, 300)) < 0.5 / np.arange(1, 301)
    np.testing.assert_array_equal(_stratify_large(positive, 5, 0), library_folds(positive, 5, 0))


@settings(deadline=None)
@given(problems())
def test_each_row_is_in_one_fold_and_each_fold_has_rows(problem: Problem) -> None:
    ids, targets, labels, groups, count = problem
    folds = stratified_folds(ids, targets, labels, count=count, seed=1, groups=groups)
    assert folds.shape == (len(ids),)
    assert folds.dtype == np.int64
    assert set(folds.tolist()) == set(range(count))


@settings(deadline=None)
@given(problems(grouped=True))
def test_a_group_is_never_split(problem: Problem) -> None:
    ids, targets, labels, groups, count = problem
    assert groups is not None
    folds = stratified_folds(ids, targets, labels, count=count, seed=1, groups=groups)
    assert pd.Series(folds).groupby(groups).nunique().eq(1).all()


@settings(deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_the_order_of_rows_and_columns_changes_nothing(problem: Problem, order: int) -> None:
    ids, targets, labels, groups, count = problem
    rng = np.random.default_rng(order)
    rows, columns = rng.permutation(len(ids)), rng.permutation(len(labels))
    folds = stratified_folds(ids, targets, labels, count=count, seed=1, groups=groups)
    shuffled = stratified_folds(
        [ids[row] for row in rows],
        targets[rows][:, columns],
        [labels[column] for column in columns],
        count=count,
        seed=1,
        groups=None if groups is None else [groups[row] for row in rows],
    )
    np.testing.assert_array_equal(shuffled, folds[rows])


def test_the_seed_decides() -> None:
    targets = np.random.default_rng(0).random((300, 5)) < 0.2
    folds = [stratified_folds(names("img", 300), targets, names("l", 5), count=5, seed=s) for s in (7, 7, 8, -1)]
    np.testing.assert_array_equal(folds[0], folds[1])
    assert (folds[0] != folds[2]).any()
    assert (folds[2] != folds[3]).any()


def test_groups_of_very_different_size_are_even_within_one_percent() -> None:
    groups, targets = simulated_patients()
    labels = names("label", 11)
    table = fold_table(
        stratified_folds(names("img", len(groups)), targets, labels, count=5, seed=0, groups=groups),
        targets,
        labels,
    )
    assert table.size_deviation <= 0.001
    assert table.label_deviation is not None
    assert table.label_deviation <= 0.01
    assert np.abs(table.positives - table.positives.mean(axis=1, keepdims=True)).max() <= 2  # rows, all labels


def test_dense_labels_are_far_more_even_than_the_library_leaves_them() -> None:
    rng = np.random.default_rng(1)
    targets = rng.random((2000, 40)) < rng.uniform(0.05, 0.6, 40)
    ids, labels = names("img", 2000), names("label", 40)
    ours = fold_table(stratified_folds(ids, targets, labels, count=5, seed=0), targets, labels)
    bare = fold_table(library_folds(targets, 5, 0), targets, labels)
    assert ours.label_deviation is not None
    assert bare.label_deviation is not None
    assert bare.label_deviation > 0.05
    assert ours.label_deviation < 0.015
    assert ours.size_deviation <= 0.02


def test_evening_out_takes_no_label_from_a_fold_that_had_it() -> None:
    """Rare labels in few, large groups: giving up a rare label would even out the frequent ones."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sizes = np.clip(np.round(rng.lognormal(2, 1.2, 60)), 1, 200).astype(np.int64)
        shares = np.geomspace(0.003, 0.4, 20)
        log_odds = 1.1 * np.log(shares / (1 - shares)) + rng.normal(0, 1.5, (60, 20))
        weights = np.column_stack([rng.binomial(sizes[:, None], 1 / (1 + np.exp(-log_odds))), sizes]).astype(float)
        before = library_folds(weights[:, :-1] > 0, 5, seed)
        after = _even_out(before, weights, 5, seed)
        assert chi_square(after, weights) < 0.7 * chi_square(before, weights)
        for fold in range(5):
            had = weights[before == fold].any(axis=0)
            assert weights[after == fold].any(axis=0)[had].all()


def chi_square(folds: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    sums = np.stack([weights[folds == fold].sum(axis=0) for fold in range(5)])[:, weights.any(axis=0)]
    return float(((sums - sums.mean(axis=0)) ** 2 / sums.mean(axis=0)).sum())


def test_evening_out_is_exact_arithmetic() -> None:
    """Equal rows make equal gains; were sums rounded, the order of columns would decide between them."""
    rng = np.random.default_rng(0)
    weights = np.column_stack([rng.random((1500, 12)) < rng.uniform(0.02, 0.6, 12), np.ones(1500)])
    start = np.arange(1500) % 5
    folds = _even_out(start, weights, 5, 0)
    assert (folds != start).sum() > 20
    for _ in range(3):
        np.testing.assert_array_equal(_even_out(start, weights[:, rng.permutation(13)], 5, 0), folds)


@pytest.mark.parametrize("positives", [0, 1, 10, 53, 100])
def test_one_label_is_enough(positives: int) -> None:
    targets = (np.arange(100) < positives).astype(np.int64)[:, None]
    folds = stratified_folds(names("img", 100), targets, ["cat"], count=5, seed=0)
    counts = np.bincount(folds[:positives], minlength=5)
    assert np.ptp(counts) <= 1
    assert np.ptp(np.bincount(folds)) <= 1


def target_of(value: float) -> NDArray[np.float64]:
    targets = np.eye(4)
    targets[2, 1] = value
    return targets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"count": count}, rf"{count} folds cannot be made from 4 rows") for count in (-1, 0, 1, 5)),
        ({"count": 3, "groups": list("pppq")}, "3 folds cannot be made from 2 groups"),
        ({"ids": list("abbd")}, "more than once: b"),
        *(
            ({"targets": target_of(value)}, rf"1 of 16 cells .*\n.*\n.*{float(value)} for id 'c', label 'x'")
            for value in (np.nan, 0.3, -1, 2)
        ),
        *(({"groups": ["p", "q", empty, "q"]}, "none for c") for empty in ("", None, float("nan"))),
        ({"labels": list("wxy")}, r"\(4, 3\), got \(4, 4\)"),
        ({"labels": list("wxyx")}, "got x more than once"),
        ({"labels": [], "targets": np.zeros((4, 0))}, r"\(4, 0\)"),
        ({"groups": list("pq")}, "2 groups for 4 ids"),
    ],
)
def test_arguments_that_make_no_folds_are_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"ids": list("abcd"), "targets": np.eye(4), "labels": list("wxyz"), "count": 2}
    with pytest.raises((FoldError, ValueError), match=message):
        stratified_folds(**(arguments | change), seed=0)


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "folds.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_a_fold_file_is_joined_by_id(tmp_path: Path) -> None:
    path = write(tmp_path, "fold,site,id\n1,x,NA\n-1,x,007\n0,y,7\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(read_fold_file(path, ["7", "NA", "007"]), [0, 1, ALWAYS_TRAIN])


def test_made_folds_survive_a_file(tmp_path: Path) -> None:
    groups, targets = simulated_patients()
    ids, labels = names("img", 2000), names("label", 11)
    folds = stratified_folds(ids, targets[:2000], labels, count=5, seed=0, groups=groups[:2000])
    path = tmp_path / "folds.csv"
    pd.DataFrame({"id": ids, "group": groups[:2000], "fold": folds}).sample(frac=1, random_state=0).to_csv(
        path, index=False
    )
    np.testing.assert_array_equal(read_fold_file(path, ids), folds)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "No columns"),
        ("image,fold\na,0\nb,1\nc,1\n", "image, fold"),
        ("id,folds\na,0\nb,1\nc,1\n", "id, folds; did you mean 'folds'"),
        ("id,fold\na,0\nb,1\nc,1\nb,1\n", "more than once: b"),
        ("id,fold\na,0\nb,1\n", "none for 1: c"),
        ("id,fold\na,0\nb,1\nc,1\nd,1\ne,1\n", "2 others: d, e"),
        ("id,fold\na,0\nb,one\nc,1\n", "'one' for id 'b'; 1 such rows"),
        ("id,fold\na,0\nb,1.0\nc,\n", "'1.0' for id 'b'; 2 such rows"),
        ("id,fold\na,0\nb\nc,1\n", "'' for id 'b'"),
        ("id,fold\na,0\nb,-2\nc,1\n", "'-2' for id 'b'"),
        ("id,fold\na,0\nb,2\nc,2\n", "no row in fold 1"),
        ("id,fold\na,1\nb,1\nc,-1\n", "no row in fold 0"),
        ("id,fold\na,999999999\nb,0\nc,-1\n", "no row in fold 1"),
        ("id,fold\na,-1\nb,-1\nc,-1\n", "only -1"),
        ("id,fold\na,0\nb,0\nc,0\n", "fold 0 for every row"),
    ],
)
def test_a_fold_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, got: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(FoldError) as caught:
        read_fold_file(path, list("abc"))
    assert str(path) in caught.value.problem
    assert got in str(caught.value.got)


def test_a_fold_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"folds\.csv.*\n.*\n.*No such file"):
        read_fold_file(tmp_path / "folds.csv", ["a"])
    with pytest.raises(FoldError, match="expected: a CSV file in UTF-8"):
        read_fold_file(write(tmp_path, "id,fold\né,0\n", encoding="latin-1"), ["é"])


def table_of(groups: str) -> TrainTable:
    """Rows a, b, c in these groups."""
    return TrainTable(("a", "b", "c"), ((Path(),),) * 3, np.eye(3, dtype=np.float32), ("x", "y", "z"), tuple(groups))


@pytest.mark.parametrize(("fold", "where"), [("1", "0, 1"), ("-1", "-1, 0")])
def test_a_fold_file_that_splits_a_group_is_refused(tmp_path: Path, fold: str, where: str) -> None:
    write(tmp_path, f"id,fold\na,0\nb,{fold}\nc,1\n")
    config = check_config({"competition": {"root": str(tmp_path)}, "folds": {"file": "folds.csv"}}, source="test")
    whole, split = table_of("pqr"), table_of("ppr")
    dealt = [0, int(fold), 1]
    assert deal_folds(config, whole, whole).tolist() == dealt
    with pytest.raises(FoldError, match=f"group 'p' in folds {where}; 1 such groups"):
        deal_folds(config, split, split)
    assert deal_folds(config, split, split, whole_groups=False).tolist() == dealt
    assert deal_folds(config, split, split.take([2, 0])).tolist() == [1, 0]  # a row that is left out splits nothing


def test_one_validation_fold_with_rows_that_always_train_is_a_holdout(tmp_path: Path) -> None:
    path = write(tmp_path, "id,fold\na,0\nb,-1\nc,-1\n")
    np.testing.assert_array_equal(read_fold_file(path, list("abc")), [0, -1, -1])


def test_the_table_counts_as_a_cross_tabulation_does() -> None:
    rng = np.random.default_rng(0)
    folds, targets = rng.integers(-1, 4, 3000), rng.random((3000, 3)) < (0.5, 0.1, 0.02)
    table = fold_table(folds, targets, ["often", "seldom", "rare"])
    frame = pd.DataFrame(targets, columns=["often", "seldom", "rare"])[folds >= 0].groupby(folds[folds >= 0])
    np.testing.assert_array_equal(table.positives, frame.sum().to_numpy().T)
    np.testing.assert_array_equal(table.sizes, frame.size())
    assert table.always_train == (folds == -1).sum()
    shares = frame.sum() / frame.sum().mean()
    np.testing.assert_allclose(table.label_deviations, (shares - 1).abs().max())
    assert table.label_deviation == table.label_deviations[0]  # the others have fewer than 100 per fold
    assert table.size_deviation == pytest.approx((frame.size() / frame.size().mean() - 1).abs().max())
    assert table.missing == {}
    assert table.warnings() == []


def test_each_label_that_misses_a_fold_is_named() -> None:
    folds = np.array([0, 0, 1, 1, 2, 2, -1])
    targets = np.array(
        [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    )
    table = fold_table(folds, targets, ["fine", "cat", "dog", "never"])
    assert table.missing == {"cat": (2,), "dog": (0, 1), "never": (0, 1, 2)}
    assert table.warnings() == [
        "label 'cat' has 2 positive rows, none in fold 2: it is not scored there",
        "label 'dog' has 1 positive row, none in folds 0, 1: it is not scored there",
        "label 'never' has no positive row in any validation fold: it is never scored",
    ]
    assert table.label_deviation is None
    np.testing.assert_array_equal(table.label_deviations, [0, 1, 2, np.nan])


def test_a_table_of_nothing_validated_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="got only -1"):
        fold_table(np.array([-1, -1]), np.eye(2), ["a", "b"])
    with pytest.raises(ValueError, match=r"expected targets of shape \(2, 1\), got \(2, 2\)"):
        fold_table(np.array([0, 1]), np.eye(2), ["a"])
