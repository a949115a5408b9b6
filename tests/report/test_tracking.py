"""What trackers receive of a run: read back from TensorBoard's and MLflow's own files, and from two fakes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.events import EpochFinished, Event, FoldFinished, Note, RunOpened
from pipeline.files import write_json_lines
from pipeline.report.tracking import Tracking
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores
from tests.report.simulated import HOSTILE, simulate

HOSTILE_RUN = "<b>[red] $x$ שלום"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def _run() -> RunFolder:
    run = simulate(HOSTILE_RUN, HOSTILE, pictures=False)
    run.report.write_text("a page")
    for fold in range(3):
        run.fold(fold).epochs.unlink()
    return run


def _config(run: RunFolder, *to: str) -> Config:
    config = run.read_config()
    tracking = {"to": list(to), "project": "a <project> $x$"}
    return config.model_validate({**config.model_dump(), "tracking": tracking})


def _epochs(run: RunFolder, training: str, last: int) -> None:
    write_json_lines(
        run.path / training / "epochs.jsonl",
        [
            {"epoch": epoch, "loss": 1 / epoch, "map": None if epoch == 1 else 0.1 * epoch}
            for epoch in range(1, last + 1)
        ],
    )


def _killed_and_resumed(run: RunFolder, *to: str) -> list[Event]:
    """Two epochs, then a kill; then the second command, with a second seed model and another fold, to the end."""
    heard: list[Event] = []
    first = Tracking(_config(run, *to), run, heard.append)
    first(RunOpened())
    for last in (1, 2):
        _epochs(run, "fold0", last)
        first(EpochFinished(0, {"epoch": last}))
    second = Tracking(_config(run, *to), run, heard.append)
    second(RunOpened())
    _epochs(run, "fold0", 4)  # the events of epochs 3 and 4 are lost or come late
    second(EpochFinished(0, {"epoch": 4}))
    _epochs(run, "fold0/seed1", 3)
    second(FoldFinished(0, resumed=False))
    _epochs(run, "fold1", 2)
    second(FoldFinished(1, resumed=False))
    second.finish(Scores.load(run.scores))
    return heard


EXPECTED = {"fold0": [1, 2, 3, 4], "fold0 seed1": [1, 2, 3], "fold1": [1, 2]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_mlflow_has_one_parent_and_each_step_once() -> None:
    client_of = pytest.importorskip("mlflow.tracking").MlflowClient
    run = _run()
    heard = _killed_and_resumed(run, "mlflow")
    assert [event for event in heard if isinstance(event, Note)] == []
    client = client_of()
    experiment = client.get_experiment_by_name("a <project> $x$")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    parent = runs.pop(HOSTILE_RUN)
    assert {one.data.tags["mlflow.parentRunId"] for one in runs.values()} == {parent.info.run_id}
    assert {one.info.status for one in (parent, *runs.values())} == {"FINISHED"}
    steps = {
        name.removeprefix(HOSTILE_RUN + " ").replace("/", " "): [
            point.step for point in client.get_metric_history(one.info.run_id, "loss")
        ]
        for name, one in runs.items()
    }
    assert steps == EXPECTED
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "scores.json",
        "thresholds.json",
        "report.html",
    }
    assert parent.data.metrics["mAP"] == Scores.load(run.scores).threshold_free.map
    assert parent.data.params["folds.count"] == "3"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_a_folder_per_training_and_each_step_once() -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    run = _run()
    heard = _killed_and_resumed(run, "tensorboard")
    assert [event for event in heard if isinstance(event, Note)] == []
    [parent] = (run.path.parent / ".tracking/tensorboard").glob("*/*")
    steps = {}
    for folder in parent.iterdir():
        if folder.is_dir():
            steps[folder.name.split("שלום ")[1].replace("_", " ")] = [
                point.step for point in reader(str(folder)).Reload().Scalars("loss")
            ]
    assert steps == EXPECTED
    assert (parent / "report.html").read_text() == "a page"


class _FakeRun:
    def __init__(self, made: list[dict[str, Any]], **words: Any) -> None:
        self.words, self.steps, self.ended = words, list[int](), False
        made.append(words)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def log_artifact(self, artifact: Any) -> None:
        self.words["files"] = artifact.files

    def finish(self) -> None:
        self.ended = True


class _Artifact:
    def __init__(self, name: str, type: str) -> None:  # noqa: A002
        self.files: list[str] = []

    def add_file(self, path: str) -> None:
        self.files.append(Path(path).name)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_a_group_of_runs_that_a_second_command_resumes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    saved: list[str] = []
    fake = SimpleNamespace(
        init=lambda **words: _FakeRun(made, **words),
        Settings=lambda **words: words,
        Artifact=_Artifact,
        save=lambda path, project: saved.append(Path(path).name),
    )
    monkeypatch.setitem(sys.modules, name, fake)
    heard = _killed_and_resumed(_run(), name)
    assert [event for event in heard if isinstance(event, Note)] == []
    key = "id" if name == "wandb" else "name"
    assert len({words[key] for words in made}) == 4
    assert len(made) == 6  # the parent and fold 0 by both commands
    assert len({words["group"] for words in made}) == 1
    assert all(words["resume"] == "allow" for words in made)
    files = next(words["files"] for words in made if "files" in words) if name == "wandb" else saved
    assert files == ["config.yaml", "scores.json", "thresholds.json", "report.html"]


def test_a_tracker_that_fails_is_noted_once_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run, heard = _run(), list[Event]()

    def refused(**_: Any) -> None:
        raise ConnectionError("no route to the server [red]")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refused, Settings=lambda **words: words))
    monkeypatch.setitem(sys.modules, "trackio", None)  # not installed
    tracking = Tracking(_config(run, "wandb", "trackio", "tensorboard"), run, heard.append)
    tracking(RunOpened())
    for last in (1, 2):
        _epochs(run, "fold0", last)
        tracking(EpochFinished(0, {"epoch": last}))
    tracking.finish(None)
    notes = [event.text for event in heard if isinstance(event, Note)]
    assert [note.split()[1] for note in notes] == ["wandb", "trackio"]
    assert "no route to the server [red]" in notes[0]
    assert len(heard) == 5
    assert len(list((run.path.parent / ".tracking/tensorboard").glob("*/*/*"))) >= 1


def test_without_trackers_nothing_is_written() -> None:
    run, heard = _run(), list[Event]()
    _epochs(run, "fold0", 1)
    tracking = Tracking(_config(run), run, heard.append)
    tracking(RunOpened())
    tracking(EpochFinished(0, {"epoch": 1}))
    tracking.finish(Scores.load(run.scores))
    assert not run.tracking.exists()
    assert len(heard) == 2
