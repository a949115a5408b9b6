"""Writes the page: `python -m pipeline report RUN [RUN ...]`, and at the end of `run_cv.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from pipeline.console import number, print_note
from pipeline.errors import PipelineError
from pipeline.files import require_ours, write_text
from pipeline.report.page.run_page import RunPage, read_run
from pipeline.report.page.runs_page import RunsPage, compare_runs, index_runs
from pipeline.run.folder import RunFolder

_MARK = "<!doctype html><!-- report of q2l-pipeline -->"


def save_report(console: Console, paths: Sequence[Path], *, out: Path | None) -> None:
    """Write the page of one run, of several, or of all runs in a folder, and print its path.

    Args:
        console: prints the path.
        paths: run folders, or one folder of runs.
        out: the page; None is `report.html` in that folder, or for several runs in the working folder.

    Raises:
        RunError: a run is not scored, a folder holds none, or `out` is a file that the pipeline did not write.
    """
    alone = len(paths) == 1
    out = out or RunFolder(paths[0] if alone else Path()).report
    require_ours(out, _is_ours)
    runs = [RunFolder.at(path) for path in paths]
    if alone and paths[0].is_dir() and not runs[0].config.exists():
        page: RunPage | RunsPage = index_runs(paths[0], out)
    else:
        page = read_run(runs[0]) if alone else compare_runs(runs, out)
    write_text(out, render(page))
    console.print(f"report: {out}", markup=False, soft_wrap=True)


def save_run_report(console: Console, run: RunFolder) -> None:
    """As `save_report` for the run of this command; a mistake is printed as a note, because the run is safe."""
    try:
        save_report(console, [run.path], out=None)
    except PipelineError as error:
        print_note(console, f"no report is written: {error.problem}; {error.remedy}")


def render(page: RunPage | RunsPage) -> str:
    """The HTML of a page; names in it are escaped."""
    environment = Environment(
        loader=PackageLoader("pipeline.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("report.html").render(page=page, mark=_MARK)


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float | None) else str(value)


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK.encode()
