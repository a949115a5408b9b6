"""The output on the terminal: names in full, scores marked as in-sample or cross-fitted, live progress."""

from __future__ import annotations

import io

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from rich.console import Console

from pipeline.competition.folds import fold_table
from pipeline.console import PlainConsole, make_console
from pipeline.events import EpochFinished, FoldFinished, FoldNote, ImageProgress, RunOpened, StepFinished
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import get_metric
from pipeline.report.live import LiveProgress
from pipeline.report.tables import print_fold_table, print_scores
from pipeline.run.records import Scores
from pipeline.run.score import build_scores
from pipeline.thresholds.cross_fitting import score_out_of_fold

LABELS = ["[cat]", "dog [/x]"]


def _console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return PlainConsole(file=text, width=140), text


def _scores(metric_name: str, *, of_folds: int = 2) -> Scores:
    generator = np.random.default_rng(0)
    targets = (generator.random((40, 2)) < 0.4).astype(np.uint8)
    probabilities = generator.random((40, 2))
    metric = get_metric(metric_name)
    honest = score_out_of_fold(metric, targets, probabilities, np.arange(40) % 2, policy="global")
    figures = per_label_table(targets, probabilities, honest.cross_fitted_decisions)
    return build_scores(honest, figures, metric=metric, labels=LABELS, folds=[0, 1], of_folds=range(of_folds), notes=[])


def test_scores_of_some_folds_are_marked_everywhere() -> None:
    for of_folds, count in ((2, 0), (5, 4)):
        console, text = _console()
        print_scores(console, _scores("f1_macro", of_folds=of_folds))
        assert text.getvalue().count("folds 0, 1 of 0-4") == count


def test_names_with_brackets_are_printed_in_full() -> None:
    console, text = _console()
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    print_fold_table(console, fold_table(np.array([0, 0, 1, 1]), targets, LABELS))
    print_scores(console, _scores("f1_macro"))
    shown = text.getvalue()
    assert shown.count("[cat]") == 2
    assert "label 'dog [/x]' has 1 positive row" in shown


@pytest.mark.parametrize(("metric", "fitted"), [("f1_macro", True), ("auc_macro", False)])
def test_in_sample_scores_are_printed_if_thresholds_were_fitted(metric: str, fitted: bool) -> None:
    console, text = _console()
    print_scores(console, _scores(metric))
    assert ("in-sample (flatters)" in text.getvalue()) is fitted
    assert ("no threshold was fitted" in text.getvalue()) is not fitted


def test_progress_has_a_line_per_epoch_and_fold() -> None:
    console, text = _console()
    record = {"epoch": 3, "loss": 0.5, "lr": 0.1, "images_per_second": 9.0, "seconds": 1.0, "map": None}
    with LiveProgress(console) as listen:
        listen(ImageProgress("checking images", 1, 2))
        listen(ImageProgress("checking images", 2, 2))
        listen(StepFinished(fold=1, epoch=3, epochs=9, step=7, steps=8, loss=0.1, lr=0.2, images_per_second=3.0))
        listen(EpochFinished(1, record))
        listen(FoldFinished(1, resumed=False))
    assert "fold 1  epoch   3  loss 0.5000  map -  9 img/s  1.0 s" in text.getvalue()
    assert "fold 1  finished" in text.getvalue()


def test_of_several_processes_only_the_first_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    progress = LiveProgress(make_console())
    progress(FoldFinished(0, resumed=False))
    progress(FoldNote(0, "memory is full"))
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_tables_of_many_labels_show_both_ends_and_name_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    count = 300
    labels = [f"label{number:03d}" for number in range(count)]
    targets = np.triu(np.ones((count, count), dtype=np.uint8))  # label k is positive in k + 1 rows
    folds = np.arange(count) % 3
    print_fold_table(make_console(), fold_table(folds, targets, labels))
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 80
    assert "40 of 300 labels" in shown
    assert {"label000", "label019", "label280", "label299"} <= {*shown.split()}
    assert "label150" not in shown


EVENTS = (
    ImageProgress("checking images", 2, 2),
    StepFinished(fold=1, epoch=1, epochs=2, step=7, steps=8, loss=0.1, lr=0.2, images_per_second=3.0),
    EpochFinished(1, {"epoch": 1, "loss": 0.5, "lr": 0.1, "images_per_second": 9.0, "seconds": 1.0, "map": 0.25}),
    EpochFinished(1, {"epoch": 2, "loss": 0.4, "lr": 0.1, "images_per_second": 9.0, "seconds": 1.0, "map": 0.75}),
    EpochFinished(0, {"epoch": 1, "loss": 0.3, "lr": 0.1, "images_per_second": 9.0, "seconds": 1.0, "map": 0.5}),
    FoldNote(1, "memory is [full]"),
)


def test_quiet_prints_notes_only() -> None:
    console, text = _console()
    with LiveProgress(console, quiet=True) as listen:
        for event in (*EVENTS, RunOpened()):
            listen(event)
        assert listen.run_opened
    assert text.getvalue() == "note: fold 1: memory is [full]\n"


def test_a_notebook_has_one_table_per_training_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = InteractiveShell.instance()
    monkeypatch.setattr("pipeline.report.live._TABLE_SECONDS", -1.0)
    with capture_output() as captured:  # as a notebook collects the outputs of a cell
        listen = LiveProgress(Console(force_jupyter=True))
        for event in EVENTS[1:-1]:
            listen(event)
    shell.clear_instance()
    tables: dict[str, str] = {}
    for output in captured.outputs:
        if output.update or output.transient:
            tables[output.transient["display_id"]] = output.data["text/plain"]
    assert [table.split("\n")[0] for table in tables.values()] == ["fold 1", "fold 0"]
    assert [line.split()[1] for line in next(iter(tables.values())).split("\n")[1:]] == ["1", "2"]
    assert len(captured.outputs) == 4
