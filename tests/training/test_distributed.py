"""Two processes train as one does, and whatever ends one of them ends both with one message."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline import processes
from pipeline.config import load_config
from pipeline.images.dataset import TrainBatch
from pipeline.model.build import backbone_of, build_model
from pipeline.model.normalize import PixelNormalizer
from pipeline.training.build import training_of
from pipeline.training.distributed import from_first, gather, in_parts, joined, share_buffers, total
from pipeline.training.loop import EpochTotals, train_epoch
from pipeline.training.non_finite import TrainingError
from tests.conftest import PROJECT
from tests.together import Ended, call_together, end, environments, start

LABELS, BATCH, BATCHES = ("red", "green", "blue"), 5, 6  # a batch that two processes cannot halve


class Trained(NamedTuple):
    gradients: list[dict[str, Tensor]]  # of each step
    weights: dict[str, Tensor]
    totals: EpochTotals
    error: str


def train(
    *overrides: str, accumulate: int = 1, held: bool = False, poisoned: int | None = None, batches: int = BATCHES
) -> Trained:
    """Steps of the demo's network with frozen batch norms; all cells of some images, most in rank 0, are unknown."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH * batches, 3, 64, 64), dtype=torch.uint8, generator=generator)
    targets = (torch.rand(len(images), len(LABELS), generator=generator) < 0.4).float()
    targets[0::4] = targets[3, 1] = torch.nan
    if poisoned is not None:
        targets[poisoned] = torch.inf
    settings = ("model.freeze=[batch_norm]", "model.dropout=0", "train.lr=1.0e-7", f"train.accumulate={accumulate}")
    config = load_config(PROJECT / "configs/demo.yaml", [*settings, *overrides])
    torch.manual_seed(0)
    model = build_model(config.model, config.images, num_labels=len(LABELS), pretrained=False)
    normalizer = PixelNormalizer([0.5] * 3, [0.25] * 3)
    training = training_of(model, normalizer, config=config, labels=LABELS, total_steps=batches)
    backbone_of(model).hold(held)
    whole = [list(range(start, start + BATCH)) for start in range(0, len(images), BATCH)]
    gradients: list[dict[str, Tensor]] = []
    step, error = training.optimizer.step, ""

    def note_gradients() -> None:
        found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        gradients.append({name: each.clone() for name, each in found.items()})
        step()

    training.optimizer.step = note_gradients
    try:
        train_epoch(
            [TrainBatch(images[rows], targets[rows], torch.tensor(rows)) for rows in map(processes.part_of, whole)],
            training,
            seed_of=lambda step: step,
            on_step=lambda _: True,
            note=print,
            name_of=lambda row: f"image {row}",
        )
    except TrainingError as caught:
        error = str(caught)
    return Trained(gradients, training.ema.module.state_dict(), training.totals, error)


AS_ONE: dict[str, Callable[[], Trained]] = {
    "plain": lambda: train("train.clip_grad=null"),
    "accumulated": lambda: train("train.clip_grad=null", accumulate=2),
    "short last group": lambda: train("train.clip_grad=null", accumulate=4),
    "clipped": lambda: train("train.clip_grad=0.05", batches=2),
    "held backbone": lambda: train("train.freeze_backbone_epochs=1", held=True, batches=2),
    "activations computed again": lambda: train("train.gradient_checkpointing=true", batches=2),
}


class Answers(NamedTuple):
    trained: dict[str, Trained]
    poisoned: Trained
    exchanged: dict[str, Any]


def exchanged() -> dict[str, Any]:
    rank, norm = processes.rank(), nn.BatchNorm1d(2)
    norm.running_mean = torch.full((2,), float(rank))
    share_buffers(norm)
    rows = torch.arange(7).numpy()
    return {
        "gathered": gather(f"of {rank}"),
        "first": from_first(lambda: f"from {rank}"),
        "total": total(1 + rank, 0.5),
        "buffers": norm.running_mean.tolist(),
        "rows": in_parts(lambda own: own[:, None].astype(np.float64) * 10, rows)[:, 0].tolist(),
        "one row": in_parts(lambda own: own[:, None].astype(np.float64) * 10, rows[3:4])[:, 0].tolist(),
        "wrapped": isinstance(Accelerator().prepare(nn.Linear(1, 1)), nn.parallel.DistributedDataParallel),
    }


def everything() -> Answers:
    return Answers({name: training() for name, training in AS_ONE.items()}, train(poisoned=6), exchanged())


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    return call_together(everything, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_take_the_steps_of_one(name: str, together: list[Answers]) -> None:
    alone = AS_ONE[name]()
    assert len(alone.gradients) == alone.totals.steps > 0
    for each in (answers.trained[name] for answers in together):
        assert (each.totals.cells, each.totals.images) == (alone.totals.cells, alone.totals.images)
        assert each.totals.mean_loss == pytest.approx(alone.totals.mean_loss, rel=1e-6)
        for ours, theirs in zip(each.gradients, alone.gradients, strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in theirs.items():
                torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6)
    first, second = (answers.trained[name] for answers in together)
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_names_its_images(together: list[Answers]) -> None:
    first, second = (answers.poisoned for answers in together)
    assert first.error == second.error
    assert "at optimizer step 2 " in first.error
    assert "images image 6, image 8\n" in first.error


def test_what_the_processes_exchange(together: list[Answers]) -> None:
    for answers in together:
        assert answers.exchanged == {
            "gathered": ["of 0", "of 1"],
            "first": "from 0",
            "total": (3.0, 1.0),
            "buffers": [0.0, 0.0],
            "rows": [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
            "one row": [30.0],
            "wrapped": True,
        }


# A command of two processes: it writes a file when both have met, then each does something else.
COMMAND = """
import os, sys, time
from pathlib import Path
from pipeline import processes
from pipeline.commands import end_process, run_command
from pipeline.errors import ConfigError
from pipeline.training import distributed

def command():
    with distributed.joined():
        distributed.total(1.0)
        Path(f"met{processes.rank()}").touch()
        ACTS[processes.rank()]()

def wait():
    distributed.from_first(lambda: time.sleep(3600))

def compute():  # a call that no signal interrupts
    import threading
    threading.Lock().acquire(blocking=False)
    until = time.monotonic() + 3600
    while time.monotonic() < until:
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            pass

def mistake():
    raise ConfigError("a.yaml: wrong", remedy="right it")

def fault():
    raise ZeroDivisionError("a fault of ours")

def exchange():
    while True:
        distributed.total(1.0)

ACTS = [eval(name) for name in sys.argv[1:3]]
distributed._GRACE, distributed._MISSED = 8.0, 5
end_process(lambda: run_command(command, "python run_cv.py x"))
"""


def act(
    first: str, second: str, folder: Path, *, signals: Mapping[int, int] | None = None
) -> tuple[list[Ended], float]:
    """How two processes end that do this after they met, and how many seconds after the signals."""
    started = [start("-c", COMMAND, first, second, environment=each, folder=folder) for each in environments()]
    until = time.monotonic() + 120
    while not all((folder / f"met{rank}").exists() for rank in range(2)) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    begun = time.monotonic()
    for rank, number in (signals or {}).items():
        os.kill(started[rank].pid, number)
    return end(*started), time.monotonic() - begun


@pytest.mark.parametrize(
    ("acts", "signals", "code", "message"),
    [
        pytest.param(("wait", "mistake"), {}, 2, "error: a.yaml: wrong", id="mistake while rank 0 works"),
        pytest.param(("mistake", "exchange"), {}, 2, "error: a.yaml: wrong", id="mistake of rank 0"),
        pytest.param(("mistake", "mistake"), {}, 2, "error: a.yaml: wrong", id="mistake of both"),
        pytest.param(("exchange", "exchange"), {1: signal.SIGTERM}, 130, "interrupted: nothing", id="SIGTERM"),
        pytest.param(("wait", "wait"), {1: signal.SIGINT}, 130, "interrupted: nothing", id="Ctrl-C while rank 0 works"),
        pytest.param(
            ("exchange", "exchange"), {0: signal.SIGINT, 1: signal.SIGINT}, 130, "interrupted: nothing", id="Ctrl-C"
        ),
        pytest.param(("mistake", "compute"), {}, 2, "error: a.yaml: wrong", id="mistake while rank 1 hangs"),
    ],
)
def test_one_process_ends_both_with_one_message(
    acts: tuple[str, str], signals: Mapping[int, int], code: int, message: str, tmp_path: Path
) -> None:
    (first, second), seconds = act(*acts, tmp_path, signals=signals)
    assert [first.code, second.code] == [code, code], first.err + second.err
    assert message in first.err
    assert first.err.count(message.split()[0]) == 1
    assert first.out == second.out == second.err == ""
    assert seconds < 30


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("acts", [("exchange", "exchange"), ("wait", "wait"), ("wait", "compute")])
def test_the_death_of_one_process_ends_the_other_with_a_remedy(
    killed: int, acts: tuple[str, str], tmp_path: Path
) -> None:
    signals = {killed: signal.SIGKILL, 1 - killed: signal.SIGTERM} if acts[1] == "wait" else {killed: signal.SIGKILL}
    ended, seconds = act(*acts, tmp_path, signals=signals)  # SIGTERM: as torchrun ends the others
    assert ended[killed].code == -signal.SIGKILL
    other = ended[1 - killed]
    assert other.code == 2, other.err
    assert re.search(r"error: another of the 2 processes ended(.|\n)*remedy: .*the same command goes on", other.err)
    assert other.err.count("error:") == 1
    assert "Traceback" not in other.err
    assert seconds < 60


def test_a_fault_of_ours_keeps_its_traceback_and_ends_the_other(tmp_path: Path) -> None:
    (first, second), _ = act("wait", "fault", tmp_path)
    assert (first.code, second.code) == (1, 1)
    assert first.out == first.err == ""
    assert second.err.endswith("ZeroDivisionError: a fault of ours\n")


def test_a_count_of_processes_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Exception, match=r"no RANK, LOCAL_RANK, MASTER_ADDR(.|\n)*unset WORLD_SIZE"), joined():
        pass
