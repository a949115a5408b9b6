"""Whether the sample submission can hold a submission of the config's format; its own cells must pass the same check.

Each remedy was tried on the sample before it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.competition.labels.list_cells import kind_of_cells
from pipeline.competition.submission.checks import CELL_CHECKS
from pipeline.competition.submission.format import BINARY, ONE_CELL, SubmissionFormat, SubmissionKind
from pipeline.competition.submission.layout import layout_like
from pipeline.competition.submission.sample import Sample
from pipeline.errors import SubmissionError, listing

_SEPARATORS = (" ", "|", ",", ";", ", ", "/")
_OTHER_KINDS: dict[str, tuple[SubmissionKind, ...]] = {
    "wide": ("wide_binary", "wide_probability"),
    "long": ("long_binary", "long_probability"),
}
_PLACEHOLDERS = (
    "if these cells are only placeholders, let competition.sample_submission name a copy where they are blank"
)


def answer_columns(sample: Sample, form: SubmissionFormat) -> list[str]:
    """The sample's columns without the ids and the constants."""
    return [name for name in sample.columns if name != sample.id_column and name not in form.constants]


def check_sample(sample: Sample, form: SubmissionFormat) -> None:
    """Check that the sample's header and cells are those of a submission of this format.

    Raises:
        SubmissionError: a column is neither a label nor a constant, or a cell that is not blank is not of this format:
            the organisers' own sample would be rejected.
    """
    absent = [name for name in form.constants if name not in sample.columns]
    if absent:
        raise SubmissionError(
            f"{sample.path}: there is no column '{absent[0]}' for submission.constants",
            got=f"columns {listing(sample.columns, 12)}",
            remedy="take it out of submission.constants, or give the sample submission of this competition",
        )
    columns = answer_columns(sample, form)
    if form.kind.startswith("wide"):
        if not columns or not set(columns) <= form.label_set:
            raise SubmissionError(
                f"{sample.path}: the columns are not the labels",
                expected=f"columns out of {listing(form.labels, 12)}",
                got=f"columns {listing(columns, 12)}",
                remedy=_columns_remedy(sample, columns, form),
            )
    elif len(columns) != 1:
        raise SubmissionError(
            f"{sample.path}: a {form.kind} submission has one column beside '{sample.id_column}'",
            got=f"columns {listing(columns, 12)}",
            remedy=_columns_remedy(sample, columns, form),
        )
    _check_cells(sample, form)


def _columns_remedy(sample: Sample, columns: Sequence[str], form: SubmissionFormat) -> str:
    if columns and set(columns) <= form.label_set:
        return "set submission.format to wide_binary or wide_probability"
    if len(columns) == 1:
        return "set submission.format: delimited, or give the sample submission of this competition"
    further = [name for name in columns if name not in form.label_set][form.kind in ONE_CELL or "long" in form.kind :]
    further = further if set(columns) & form.label_set or not form.kind.startswith("wide") else []
    if not further:
        return "give the sample submission of this competition"
    shown = {name: next(iter(sample.cells.get(name, ())), "0") for name in further}
    constants = listing((f"{name}: {cell}" for name, cell in shown.items()), 100)
    return f"set the cells of further columns, submission.constants: {{{constants}}}, or give the right sample"


def _check_cells(sample: Sample, form: SubmissionFormat) -> None:
    other = form.kind in ONE_CELL and form.cells == "joined" and kind_of_cells(_cells(sample, form)) == "vector"
    faults = [
        (name, cell, id_, fault)
        for name in answer_columns(sample, form)
        for cell, id_ in sample.cells.get(name, {}).items()
        if (fault := _fault(cell, form) or ("a vector with a 0 or 1 for each label" if other else ""))
    ]
    if not faults:
        return
    cells = _cells(sample, form)
    shown = [f"{id_}, {name} = '{cell[:40]}' is {fault}" for name, cell, id_, fault in faults]
    raise SubmissionError(
        f"{sample.path}: {len(faults)} different cells of the sample would be rejected in a submission of this format",
        expected=f"cells of the format {form.kind}" + (f", {form.cells}" if form.kind in ONE_CELL else ""),
        got=listing(shown, 3),
        remedy=next(_remedies(cells, [cell for _, cell, _, _ in faults], form), _PLACEHOLDERS),
    )


def _cells(sample: Sample, form: SubmissionFormat) -> list[str]:
    return [cell for name in answer_columns(sample, form) for cell in sample.cells.get(name, ())]


def _fault(cell: str, form: SubmissionFormat) -> str:
    """The reason to reject the cell, or "". Where 0.0 is in the sample, an integer is as good.

    Of labels that are numbers, others than the training table's may be in it: classes without a training image.
    """
    if form.kind in BINARY and cell.strip() in ("0.0", "1.0", "0.", "1."):
        return ""
    names = form.layout.split(cell.strip()) or []
    if form.kind in ONE_CELL and form.cells != "vector" and all(map(str.isdecimal, (*form.labels, *names))):
        form = replace(form, labels=(*form.labels, *(name for name in names if name not in form.label_set)))
    return CELL_CHECKS[form.kind](cell.strip(), form)


def _remedies(cells: Sequence[str], faulty: Sequence[str], form: SubmissionFormat) -> Iterator[str]:
    """Changes of the format with which all of `cells` pass, then what only a person can decide."""
    for change, changed in _changes(cells, form):
        if changed.cells == "joined" and kind_of_cells(cells) == "vector":
            continue
        if not any(_fault(cell, changed) for cell in cells):
            yield f"set submission.{change}"
    if form.kind not in ONE_CELL:
        return
    token = faulty[0].strip()
    if (
        len({*faulty}) == 1
        and (form.kind, form.cells) == ("delimited", "joined")
        and token not in ("none", "argmax")
        and " " not in token
    ):
        yield f"if it means no label, set submission.empty: '{token}'; {_PLACEHOLDERS}"
    yield f"if they hold labels without a training image, list all in competition.labels.classes; {_PLACEHOLDERS}"


def _changes(cells: Sequence[str], form: SubmissionFormat) -> Iterator[tuple[str, SubmissionFormat]]:
    """Settings to try, and the format with each."""
    for kind in _OTHER_KINDS.get(form.kind.partition("_")[0], ()):
        yield f"format: {kind}", replace(form, kind=kind)
    if form.kind not in ONE_CELL:
        return
    joined = replace(form, cells="joined", written=None)
    for separator in _SEPARATORS:
        also = "" if form.cells == "joined" else ", submission.cells: joined"
        yield f"separator: '{separator}'{also}", replace(joined, separator=separator)
    yield "cells: list", replace(form, cells="list", written=layout_like(cells, "list", form.labels))
    if form.kind == "delimited":
        yield "cells: vector", replace(form, cells="vector", written=layout_like(cells, "vector", form.labels))
    else:
        most = max(len(form.layout.split(cell) or ()) for cell in cells)
        yield f"k: {most}", replace(form, k=most)
