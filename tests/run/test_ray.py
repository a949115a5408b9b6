"""Folds and trials as tasks of a Ray cluster of two machines: the same bytes as here, also after one of them died."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError, RunError
from pipeline.events import Event, FoldFinished, Note, StepFinished, TrialStep
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, prepare
from pipeline.search.search import run_search
from tests.conftest import PROJECT
from tests.e2e.commands import cv, ignore, make_plan
from tests.run.test_parallel_folds import _task
from tests.together import end, start

pytest.importorskip("ray", reason="Ray is not installed")

from pipeline.run import ray_executor
from pipeline.run.ray_executor import _room, _Shared, run_on_ray

RAY = ("train.executor=ray", "train.checkpoint_minutes=1.0e-9")
MACHINE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one machine with one core, to which tests add another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(PROJECT))  # of the machines
        from ray.cluster_utils import Cluster

        made: Any = Cluster(initialize_head=True, head_node_args=MACHINE)
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


@pytest.fixture
def second(cluster: Any) -> Iterator[Callable[[], None]]:
    """Adds a machine; called, it kills that one."""
    node = cluster.add_node(**MACHINE)

    def kill() -> None:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)

    yield kill
    kill()


def trained(
    plan: Plan, run: RunFolder, listen: Callable[[Event], None] = ignore, folds: list[int] | None = None
) -> bytes:
    run_cv(plan, run, folds=folds, fresh=False, listen=listen)
    return run.oof.read_bytes()


@pytest.mark.usefixtures("second")
def test_folds_on_two_machines_give_the_bytes_of_this_process(tiny_config: Path) -> None:
    events: list[Event] = []
    here = trained(make_plan(tiny_config), RunFolder(Path("runs/here")))
    assert trained(make_plan(tiny_config, *RAY), RunFolder(Path("runs/there")), events.append) == here
    assert sorted(event for event in events if isinstance(event, FoldFinished)) == [
        FoldFinished(fold, resumed=False) for fold in (0, 1)
    ]
    steps = [(event.fold, event.step) for event in events if isinstance(event, StepFinished)]
    assert sorted(steps) == [(fold, step) for fold in (0, 1) for step in range(1, 7)]
    assert sorted(path.name for path in Path("runs/there").iterdir() if path.name.startswith(".")) == []


@pytest.mark.ray
@pytest.mark.usefixtures("second")
def test_seed_models_and_the_full_fit_are_tasks(tiny_config: Path) -> None:
    here, there = RunFolder(Path("runs/here")), RunFolder(Path("runs/there"))
    settings = ("train.seeds=2", "train.full_fit=true")
    assert trained(make_plan(tiny_config, *settings, *RAY), there) == trained(make_plan(tiny_config, *settings), here)
    for path in ("fold0/seed1", "full", "full/seed1"):
        assert (there.path / path / "weights.safetensors").read_bytes() == (
            here.path / path / "weights.safetensors"
        ).read_bytes()


@pytest.mark.ray
@pytest.mark.usefixtures("second")
def test_tasks_share_the_maps_of_a_frozen_backbone(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = RunFolder(Path("runs/begun"))
    run_cv(make_plan(tiny_config, "train.epochs=1"), begun, folds=[0], fresh=False, listen=ignore)
    settings = ("train.frozen_backbone=true", f"model.backbone_weights={begun.fold(0).weights}", "images.cache=none")
    here = trained(make_plan(tiny_config, *settings), RunFolder(Path("here/run")))
    there = RunFolder(Path("there/run"))
    begin, made = run_on_ray, list[str]()

    def on_ray(*words: Any, **named: Any) -> None:
        made.extend(path.name for path in there.cache.glob("*.npy"))
        begin(*words, **named)

    monkeypatch.setattr("pipeline.run.cv.run_on_ray", on_ray)
    assert trained(make_plan(tiny_config, *settings, *RAY), there) == here
    assert made
    assert sorted(made) == sorted(path.name for path in there.cache.glob("*.npy"))


@pytest.mark.ray
def test_a_fold_whose_machine_died_goes_on_elsewhere_with_the_same_bytes(
    second: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("folds.count=4", "train.epochs=8", "images.size=32", "train.parallel_folds=1", "train.batch_size=8")
    events = list[Event]()

    def planned(*settings: str) -> Plan:
        return prepare(load_config(PROJECT / "configs/demo.yaml", [*small, *settings]), debug=True, listen=ignore)

    def listen(event: Event) -> None:
        events.append(event)
        begun = {each.fold for each in events if isinstance(each, StepFinished) and each.step >= 5}
        if len(begun) == 2:
            second()

    there = trained(planned(*RAY), RunFolder(Path("runs/there")), listen)
    assert there == trained(planned(), RunFolder(Path("runs/here")))
    (lost,) = [event for event in events if isinstance(event, Note) and "was lost" in event.sentence]
    fold = int(lost.sentence.split()[1])
    after = [each.step for each in events[events.index(lost) :] if isinstance(each, StepFinished) and each.fold == fold]
    assert after[0] > 5
    assert after == list(range(after[0], after[-1] + 1))


@pytest.mark.ray
def test_a_search_loses_no_trial_with_a_machine(second: Callable[[], None], tiny_config: Path) -> None:
    run, notes = RunFolder(Path("runs/search")), list[str]()

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.sentence)
        if isinstance(event, TrialStep) and event.trial >= 4:
            second()

    plan = make_plan(tiny_config, *RAY, "search.trials=12", "search.then=stop")
    assert run_search(plan, run, workers=2, fresh=False, command="", listen=listen) is not None
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{run.search.study}")
    done = [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert 12 <= len(done) <= 13
    assert any("was lost" in note for note in notes)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("job", "kind", "message"),
    [
        ("mistake", ConfigError, "mend it"),
        ("fault", RuntimeError, "fold 1 failed(.|\n)*ZeroDivisionError"),
        ("death", RunError, r"fold 1 was lost 4 times (.|\n)*the same command goes on"),
    ],
)
def test_a_failing_task_ends_the_command(
    cluster: Any, tiny_config: Path, job: str, kind: type[Exception], message: str
) -> None:
    seen: list[Event] = []
    begin = time.monotonic()
    with pytest.raises(kind, match=message):
        run_on_ray(_task, job, RunFolder(Path("runs/x")), [1, 2], plan=make_plan(tiny_config, *RAY), listen=seen.append)
    assert time.monotonic() - begin < 50
    assert (FoldFinished(2, resumed=False) in seen) == (job == "death")


@pytest.mark.ray
def test_a_machine_that_has_just_left_the_cluster_is_no_fault(second: Callable[[], None], tiny_config: Path) -> None:
    events: list[Event] = []
    second()
    run_on_ray(_task, "fine", RunFolder(Path("runs/x")), [1], plan=make_plan(tiny_config, *RAY), listen=events.append)
    assert FoldFinished(1, resumed=False) in events


@pytest.mark.ray
def test_without_room_the_command_ends(cluster: Any, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "_PLACE_SECONDS", 3.0)
    monkeypatch.setattr(ray_executor, "_room", lambda *_: (9, 0))
    with pytest.raises(RunError, match="had room for a fold"):
        run_on_ray(_task, "fine", RunFolder(Path("runs/x")), [1], plan=make_plan(tiny_config, *RAY), listen=ignore)


@pytest.mark.ray
def test_ctrl_c_saves_the_state_and_the_same_command_goes_on(cluster: Any, tiny_config: Path) -> None:
    words = ("tiny.yaml", "train.epochs=30", "train.executor=ray", "--folds", "0")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = start(PROJECT / "run_cv.py", *words, environment=environment)
    epochs = RunFolder(Path("runs/tiny")).fold(0).epochs
    until = time.monotonic() + 240
    while not epochs.exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)
    (ended,) = end(started)
    assert ended.code == 130
    assert f"to go on:\n  python run_cv.py {' '.join(words)}" in ended.err
    assert not RunFolder(Path("runs/tiny")).fold(0).done.exists()
    again, whole = make_plan(tiny_config, *words[1:3]), make_plan(tiny_config, words[1])
    steps: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            steps.append(event.step)

    resumed = trained(again, RunFolder(Path("runs/tiny")), listen, folds=[0])
    assert resumed == trained(whole, RunFolder(Path("runs/whole")), folds=[0])
    assert steps[0] > 3


def test_a_machine_that_does_not_see_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probe, image = tmp_path / "probe", tmp_path / "a.png"
    probe.write_text("here")
    image.touch()
    fine = _Shared(str(tmp_path), str(probe), "here", "a.png")
    assert fine.fault() is None
    assert "has another content" in str(fine._replace(content="there").fault())
    for missing in (fine._replace(folder="/none"), fine._replace(probe="none"), fine._replace(image="none")):
        assert "none: No such file" in str(missing.fault())


@pytest.mark.parametrize(
    ("machines", "beside", "room"),
    [
        ([{"CPU": 8.0}, {"CPU": 4.0}, {"memory": 9.0}], 1, (4, 0)),
        ([{"CPU": 8.0}], 3, (2, 0)),
        ([{"CPU": 2.0}], 3, (1, 0)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 2.0}], 1, (8, 1)),
        ([], 1, (1, 0)),
    ],
)
def test_a_task_has_a_gpu_or_a_share_of_the_smallest_machine(
    machines: list[dict[str, float]], beside: int, room: tuple[int, int]
) -> None:
    dead = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 1.0}}
    assert _room([dead, *({"Alive": True, "Resources": machine} for machine in machines)], beside) == room


def test_an_address_without_ray_is_refused_at_once(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    assert cv(monkeypatch, tiny_config, *RAY, "train.ray_address=127.0.0.1:9") == 2
    assert "Ray does not answer at 127.0.0.1:9" in capsys.readouterr().err
    assert time.monotonic() - begin < 20


def test_the_deadline_of_a_plan_is_a_time_of_day_on_its_way(tiny_config: Path) -> None:
    plan = replace(make_plan(tiny_config), deadline=time.monotonic() + 100)
    state = plan.__getstate__()
    assert state["deadline"] == pytest.approx(time.time() + 100, abs=5)
    again = object.__new__(Plan)
    again.__setstate__(state)
    assert again.deadline == pytest.approx(plan.deadline, abs=5)
