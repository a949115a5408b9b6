"""The page of a run: what it shows is what the folder holds, and names in it are text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cleanlab.filter import find_label_issues

from pipeline.errors import RunError
from pipeline.metrics.ranking import rank
from pipeline.report.compare import compare
from pipeline.report.page.label_errors import self_confidence, suspected
from pipeline.report.page.label_figures import Cell, label_figures
from pipeline.report.page.run_page import read_run
from pipeline.report.page.runs_page import RunsPage, compare_runs, index_runs
from pipeline.report.page.tables import Cells, Link
from pipeline.report.page.write import render
from pipeline.run.folder import RunFolder
from tests.e2e.commands import printed, verb
from tests.report.simulated import HOSTILE, simulate


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class _Parsed(HTMLParser):
    """The tags of a page, the texts of its label buttons, and its data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.labels: list[str] = []
        self.data = ""
        self._inside: dict[str, str | None] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("button", "script"):
            self._inside = dict(attrs)
            self.labels += [""] if "data-label" in self._inside else []

    def handle_endtag(self, tag: str) -> None:
        self._inside = {} if tag in ("button", "script") else self._inside

    def handle_data(self, data: str) -> None:
        if "data-label" in self._inside:
            self.labels[-1] += data
        if self._inside.get("id") == "data":
            self.data += data


def test_hostile_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate("<b>[red]$x$", HOSTILE, ids=[f"{name} {number}" for number in range(7) for name in HOSTILE])
    assert verb("report", run.path) == 0
    assert "report: runs/<b>[red]$x$/report.html" in printed(capsys)
    page = _Parsed(run.report.read_text())
    assert page.labels == list(HOSTILE)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    data = json.loads(page.data)
    assert data["labels"] == list(HOSTILE)
    assert {cell["id"][:-2] for cell in data["gallery"]} >= {*HOSTILE[:2]}


@pytest.mark.parametrize("seed", range(8))
def test_suspected_cells_are_those_of_cleanlab(seed: int) -> None:
    generator = np.random.default_rng(seed)
    bits = (generator.random(400) < [0.05, 0.3, 0.5, 0.8][seed % 4]).astype(np.uint8)
    probabilities = np.clip(generator.beta(2, 4, 400) + 0.3 * bits, 0.001, 0.999)
    both = np.stack([1 - probabilities, probabilities], axis=1)
    expected = find_label_issues(bits, both, filter_by="confident_learning", n_jobs=1)
    np.testing.assert_array_equal(suspected(bits, probabilities), expected)
    ranked = find_label_issues(
        bits, both, filter_by="confident_learning", n_jobs=1, return_indices_ranked_by="self_confidence"
    )
    confidence = self_confidence(bits, probabilities)
    np.testing.assert_array_equal(np.flatnonzero(expected)[np.argsort(confidence[expected])], ranked)


def test_a_label_of_one_class_has_no_suspects() -> None:
    for bits in (np.zeros(5, np.uint8), np.ones(5, np.uint8)):
        assert not suspected(bits, np.linspace(0, 1, 5)).any()


def test_the_figures_of_a_label_follow_their_definitions() -> None:
    generator = np.random.default_rng(3)
    bits, rows = (generator.random(500) < 0.3).astype(np.uint8), np.arange(500) * 2
    probabilities = np.clip(0.3 + 0.3 * bits + 0.2 * generator.normal(size=500), 0, 1)
    figures, cells = label_figures(7, rows, bits, probabilities, probabilities**2, threshold=0.5, shown=3)
    decided = probabilities >= 0.5
    assert figures.mark == (bits[decided].sum() / bits.sum(), bits[decided].mean())
    edges = np.minimum((probabilities * 15).astype(int), 14)
    error = sum(abs(bits[edges == b].mean() - probabilities[edges == b].mean()) * (edges == b).mean() for b in {*edges})
    assert figures.calibration_error == pytest.approx(error)
    assert sum(n + p for n, p, _ in figures.bins) == 500
    ranking = rank(bits, probabilities)
    exact = zip(ranking.true_positives / ranking.positives, ranking.true_positives / ranking.predicted, strict=True)
    assert len(figures.curve) <= 80
    assert {*figures.curve} <= {(round(float(r), 4), round(float(p), 4)) for r, p in exact}
    wrong = [cell for cell in cells if cell.kind == "false positive"]
    best = sorted(probabilities[(bits == 0) & decided])[::-1][:3]
    assert [cell.probability for cell in wrong] == best
    doubts = [cell for cell in cells if cell.kind == "suspect"]
    assert figures.suspects == len(doubts) == suspected(bits, probabilities**2).sum() > 0
    assert [cell.self_confidence for cell in doubts] == sorted(cell.self_confidence for cell in doubts)
    assert all(bits[cell.row // 2] == cell.given and cell.label == 7 for cell in cells)
    assert Cell("miss", 0, 0, 1, 0.2).self_confidence == 0.2


def test_rows_are_joined_by_id_and_unknown_cells_are_left_out() -> None:
    run = simulate("one", ["a", "b"], 90, noise=0.5)
    before = read_run(run)
    table = pd.read_csv("data/train.csv", dtype=str)
    table.iloc[::-1].to_csv("data/train.csv", index=False)
    assert read_run(run).data["suspects"] == before.data["suspects"]
    hidden = before.data["suspects"][0]
    table.loc[table["id"] == hidden["id"], ["a", "b"][hidden["label"]]] = ""
    table.to_csv("data/train.csv", index=False)
    after = read_run(run)
    shown = [*after.data["suspects"], *after.data["gallery"]]
    assert (hidden["id"], hidden["label"]) not in {(cell["id"], cell["label"]) for cell in shown}


def test_without_the_training_table_or_images_the_page_says_so() -> None:
    run = simulate("one", ["a", "b"], pictures=False)
    assert any("images could not be read" in note for note in read_run(run).notes)
    Path("data/train.csv").unlink()
    page = read_run(run)
    assert any("need the training table" in note for note in page.notes)
    assert page.labels.rows[0][0] == "a"
    assert "cross-fitted" in render(page)


def test_many_labels_are_sampled_and_the_page_stays_small() -> None:
    run = simulate("wide", [f"label {number}" for number in range(120)], 90)
    page = read_run(run)
    assert len(page.data["curves"]) == len(page.labels.rows) == 120
    assert len({cell["label"] for cell in page.data["gallery"]}) <= 80
    assert len(page.data["together"]["labels"]) == 20
    assert len(render(page)) < 3_000_000


def test_runs_are_compared_as_the_compare_verb_does() -> None:
    first, second = simulate("one", ["a", "b"], noise=0.4), simulate("two", ["a", "b"], noise=0.1, train={"epochs": 7})
    page, found = compare_runs([first, second], Path("report.html")), compare(first, second)
    assert page.differences is not None
    assert page.settings is not None
    assert page.differences.rows == [("two", found.difference, *found.spread, found.better, found.rows)]
    assert page.settings.rows == [("train.epochs", "auto", "7")]
    assert [row[0] for row in page.board.rows] == ["two", "one"]
    assert "Differences" in render(page)


def test_the_index_lists_every_run_the_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    simulate("worse", ["a", "b"], noise=0.4)
    best = simulate("best", ["a", "b"], noise=0.1)
    verb("report", best.path)
    simulate("begun", ["a", "b"]).scores.unlink()
    (simulate("broken", ["a", "b"]).scores).write_text("{")
    rows = index_runs(Path("runs"), Path("runs/report.html")).board.rows
    assert [row[0] for row in rows] == [Link("best", "best/report.html"), "worse", "begun", "broken"]
    assert [row[9] for row in rows[:2]] == [18, 18]
    assert rows[2][-1] == "not scored"
    assert "not valid JSON" in str(rows[3][-1])
    assert verb("report", "runs") == 0
    assert "report: runs/report.html" in printed(capsys)


def test_only_its_own_pages_are_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    run = simulate("one", ["a", "b"])
    Path("mine.html").write_text("<p>mine")
    assert verb("report", run.path, "--out", "mine.html") == 2
    assert "not an earlier output" in capsys.readouterr().err
    assert Path("mine.html").read_text() == "<p>mine"
    assert [verb("report", run.path, "--out", "own.html") for _ in range(2)] == [0, 0]
    with pytest.raises(RunError, match="holds no run"):
        index_runs(Path("data"), Path("x.html"))
    run.begin(fresh=True)
    assert not RunFolder(run.path).report.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/one", "runs/../runs/one"], "runs/../runs/one is given twice"),
        (["runs", "runs/one"], "runs is not a run folder"),
        (["runs/one", "runs/none"], "runs/none is not a run folder"),
        (["runs/one", "runs/begun"], "finish the run first"),
        (["data"], "holds no run"),
    ],
)
def test_what_is_no_scored_run_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    simulate("one", ["a", "b"], pictures=False)
    simulate("begun", ["a", "b"], pictures=False).scores.unlink()
    assert verb("report", *words) == 2
    assert message in capsys.readouterr().err
    assert not Path("report.html").exists()


def test_a_missing_number_is_aligned_as_the_numbers_are() -> None:
    html = render(RunsPage("runs", Cells(("run", "score"), [("begun", None), ("best", 0.5)])))
    assert '<th scope="col" class="n"><button type="button">score' in html
    assert '<td class="n"><bdi>-</bdi></td>' in html
    assert '<td class="n" data-value="0.5">' in html
