"""Commands that lose a loading worker, or get Ctrl-C or SIGTERM, at random moments, and are then repeated.

`python -m tests.fuzz.interruptions workers|signals COUNT [SEED [COMMAND ...]]` prints a line per try and the counts.
The commands are forks of this process, which has imported all: a try takes seconds.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

import make_submission
import pipeline.__main__
import run_cv
from tests.conftest import TINY, make_wide_competition

SETTINGS = (
    *("train.workers=1", "train.epochs=2", "train.batch_size=2", "predict.batch_size=1"),
    *("train.checkpoint_minutes=1e-9", "images.cache=none"),
)
CV = ("run_cv.py", "tiny.yaml", *SETTINGS)
SEARCH = (*CV, "--run", "searched", "--search", "search.trials=2", "search.epochs=1", "search.then=stop")
SUBMIT = ("make_submission.py", "runs/tiny")
COMMANDS = {
    "run_cv": CV,
    "search": SEARCH,
    "make_submission": SUBMIT,
    "check": ("check", "tiny.yaml"),
    "new": ("new", "data/train.csv", "data/train", "--out", "first.yaml"),
    "compare": ("compare", "runs/tiny", "runs/tiny"),
    "figures": ("figures", "runs/tiny", "sheet.png", "--count", "4"),
    "attention": ("attention", "runs/tiny", "data/train/t.003.png"),
}
WITH_WORKERS = ("run_cv", "search", "make_submission")
MODULES = (
    *("pipeline.run.cv", "pipeline.search.search", "pipeline.search.table", "pipeline.report.live"),
    *("pipeline.report.compare", "pipeline.report.figures", "pipeline.report.attention", "pipeline.report.tables"),
    *("pipeline.audit.check", "pipeline.audit.first_config", "pipeline.run.submission.submit", "scipy.stats"),
    *("pipeline.autopilot.autopilot", "pipeline.report.page.write", "pipeline.report.tracking", "iterstrat"),
    *("pipeline.search.figures", "sklearn.cluster", "sklearn.model_selection", "alembic.command", "PIL.Image"),
)
LIMIT = 60.0  # seconds from the blow to the end of the command
DONE = Path("done")  # holds when a command had returned; what follows is the end of Python


class Ended(NamedTuple):
    """How a command ended: its exit code, None if it had to be killed, what it printed, seconds since the blow."""

    code: int | None
    text: str
    seconds: float
    children: int = 0  # that live on


def start(words: tuple[str, ...], log: Path) -> int:
    """Fork a process, the leader of its group, that executes a command; returns its number once the command begins."""
    ready, begun = os.pipe()
    process = os.fork()
    if process:
        os.close(begun)
        os.read(ready, 1)
        os.close(ready)
        return process
    code = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv[:] = list(words)
        os.close(begun)
        try:
            if words[0] == "run_cv.py":
                run_cv.console_script()
            elif words[0] == "make_submission.py":
                make_submission.console_script()
            else:
                sys.argv[:] = ["pipeline", *words]
                pipeline.__main__.console_script()
        except SystemExit as ended:
            DONE.write_text(str(time.monotonic()))
            code = int(ended.code or 0)
        atexit._run_exitfuncs()
    except BaseException:  # noqa: BLE001 (a traceback is what is counted)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(process: int, log: Path, since: float) -> Ended:
    """Wait for a command, at most `LIMIT` seconds, and count what it leaves behind."""
    code = None
    while code is None and time.monotonic() - since < LIMIT:
        found, status = os.waitpid(process, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if found else None
        time.sleep(0.005)
    seconds = time.monotonic() - since
    if code is None:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    left = [each for each in psutil.process_iter(["pid"]) if _group(each.pid) == process]
    for each in left:
        each.kill()
    return Ended(code, log.read_text(errors="replace"), seconds, len(left))


def _group(process: int) -> int:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return -1


def kill_worker(process: int, place: int, delay: float) -> bool:
    """Kill a loading worker of the command: the one that started as number `place`, `delay` seconds later, if it lives.

    Returns whether one was killed. The workers are all children of the command.
    """
    seen: list[int] = []
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        seen += [child.pid for child in psutil.Process(process).children() if child.pid not in seen]
        if len(seen) > place:
            time.sleep(delay)
            try:
                os.kill(seen[place], signal.SIGKILL)
            except ProcessLookupError:
                return False
            return True
        time.sleep(0.001)
    return False


def count_workers(name: str, log: Path) -> int:
    """How many loading workers a command starts."""
    seen: set[int] = set()
    process = start(COMMANDS[name], log)
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        seen |= {child.pid for child in psutil.Process(process).children()}
        time.sleep(0.001)
    assert end(process, log, time.monotonic()).code == 0
    return len(seen)


def outputs(name: str) -> bytes:
    """What a command leaves, where that is the same after every kind of interruption."""
    files = {"run_cv": "runs/tiny/oof.parquet", "make_submission": "runs/tiny/submission.csv", "new": "first.yaml"}
    return Path(files[name]).read_bytes() if name in files else b""


def reset(name: str) -> None:
    """Remove what `name` has left."""
    for path in {"run_cv": ["runs/tiny"], "search": ["runs/searched"], "new": ["first.yaml"]}.get(name, []):
        shutil.rmtree(path, ignore_errors=True)
        Path(path).unlink(missing_ok=True)


def try_workers(name: str, generator: random.Random, usual: float, whole: bytes, log: Path) -> str:
    """Kill a worker of a command once, and repeat it; one word on what came."""
    reset(name)
    process = start(COMMANDS[name], log)
    if not kill_worker(process, generator.randrange(max(1, round(usual))), generator.expovariate(8)):
        end(process, log, time.monotonic())
        return "no worker was left to kill"
    ended = end(process, log, time.monotonic())
    if ended.code == 0:
        return "was not needed any more" if outputs(name) == whole else "WRONG BYTES"
    if ended.code != 2 or ended.text.count("error: ") != 1 or "Traceback" in ended.text or ended.children:
        return f"BAD: {ended}"
    again = end(start(COMMANDS[name], log), log, time.monotonic())
    return "2, one message, goes on" if again.code == 0 and outputs(name) == whole else f"DOES NOT GO ON: {again}"


def try_signal(name: str, generator: random.Random, usual: float, whole: bytes, log: Path) -> str:
    """Send a signal to a command or to its group once, and repeat it; one word on what came."""
    reset(name)
    number, to_group = generator.choice([signal.SIGINT, signal.SIGTERM]), generator.random() < 0.5
    process = start(COMMANDS[name], log)
    time.sleep(generator.uniform(0, usual))
    if os.waitpid(process, os.WNOHANG) != (0, 0):
        return "had ended before"
    blow = time.monotonic()
    (os.killpg if to_group else os.kill)(process, number)
    ended = end(process, log, blow)
    kind = f"{number.name} to the {'group' if to_group else 'process'}"
    if ended.code == 0 and float(DONE.read_text()) > blow + 0.02:
        return f"LOST, {kind}, {float(DONE.read_text()) - blow:.2f} s too early"
    if ended.code == 0:
        return "had finished its work" if outputs(name) == whole else f"WRONG BYTES, {kind}"
    if ended.code != 130 or ended.text.count("interrupted: ") != 1 or "Traceback" in ended.text or ended.children:
        return f"BAD, {kind}: {ended}"
    again = end(start(COMMANDS[name], log), log, time.monotonic())
    return "130, one message, goes on" if again.code == 0 and outputs(name) == whole else f"DOES NOT GO ON: {again}"


def make_place(place: Path) -> None:
    """Make the small competition in `place`, and go there."""
    make_wide_competition(place / "data", train=20, test=12)
    (place / "tiny.yaml").write_text(TINY)
    os.chdir(place)
    torch.set_num_threads(1)
    for name in MODULES:
        importlib.import_module(name)


def many(what: str, count: int, seed: int = 0, *names: str) -> Counter[str]:
    """`count` tries of commands in turn, in the current folder; how often each word came."""
    generator, log = random.Random(seed), Path("log")
    attempt = try_workers if what == "workers" else try_signal
    names = names or (WITH_WORKERS if what == "workers" else tuple(COMMANDS))
    usual, whole = dict[str, float](), dict[str, bytes]()
    for name in ["run_cv", *names]:
        reset(name)
        begin = time.monotonic()
        ended = end(start(COMMANDS[name], log), log, begin)
        assert ended.code == 0, ended
        usual[name], whole[name] = ended.seconds, outputs(name)
        if what == "workers":
            reset(name)
            usual[name] = count_workers(name, log)
    shutil.copytree("runs/tiny", "kept")
    found: Counter[str] = Counter()
    for turn in range(count):
        name = names[turn % len(names)]
        if name != "run_cv" and not Path("runs/tiny/scores.json").exists():
            shutil.rmtree("runs/tiny", ignore_errors=True)
            shutil.copytree("kept", "runs/tiny")
        word = attempt(name, generator, usual[name], whole[name], log)
        if what != "workers":  # a third of the blows come too late, however busy the machine is
            usual[name] *= 0.9 if word.startswith("had ") else 1.05
        found[f"{name}: {word}" if word[:1].isupper() else word] += 1
        print(turn, name, word, flush=True)  # noqa: T201
    return found


if __name__ == "__main__":
    make_place(Path(tempfile.mkdtemp()))
    _, asked, tries, first, *commands = [*sys.argv, *["0"][len(sys.argv) - 3 :]]
    print(json.dumps(many(asked, int(tries), int(first), *commands), indent=2))  # noqa: T201
