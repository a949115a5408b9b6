"""Runs hostile input against the pipeline in this process: success or the project's own error, in time, and no writes
outside of a folder."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import PipelineError

LIMIT_SECONDS = 30
_WRITING = 0o3  # os.O_WRONLY | os.O_RDWR
_watch: dict[str, Any] = {"inside": None, "secret": None, "seen": []}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or _watch["inside"] is None or not isinstance(arguments[0], str):
        return
    path, mode, flags = arguments
    place = str(Path(path).absolute())
    writes = bool(flags & _WRITING) or any(letter in (mode or "") for letter in "wax+")
    inside = place.startswith((_watch["inside"], "/dev/", "/proc/"))
    if (writes and not inside) or place.startswith(_watch["secret"]):
        _watch["seen"].append(f"{path} ({mode or flags})")


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(inside: Path, secret: Path) -> Iterator[None]:
    """Note each write outside of the folder `inside`, and each opened file in `secret`."""
    _watch.update(inside=str(inside), secret=str(secret), seen=[])
    try:
        yield
    finally:
        _watch["inside"] = None


class TooSlow(BaseException):
    """An attempt took longer than the limit."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow


def attempt(action: Callable[[], object], inside: Path, secret: Path, *, seconds: float = LIMIT_SECONDS) -> str:
    """The outcome of `action`: `done`, `refused`, or the last lines of what must not be."""
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with watched(inside, secret):
            action()
        outcome = "done"
    except PipelineError as error:
        outcome = "refused" if len(str(error)) < 20_000 else f"a message of {len(str(error))} letters"
    except TooSlow:
        outcome = "too slow: " + "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
    except Exception:  # noqa: BLE001 (a finding)
        outcome = "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return outcome if not _watch["seen"] else f"outside: {_watch['seen'][:3]}"


def findings(outcomes: dict[int, str]) -> str:
    """The counts of the outcomes, then each seed whose outcome is a finding."""
    kinds = Counter(outcome if outcome in ("done", "refused") else "finding" for outcome in outcomes.values())
    bad = [f"seed {seed}: {outcome}" for seed, outcome in outcomes.items() if outcome not in ("done", "refused")]
    return "\n".join([str(dict(kinds)), *bad])


NUMBERS: list[Any] = [0, -1, 1, 2**31, 2**63, 10**18, 1e308, -1e-300, float("inf"), float("nan"), 0.5, True, "9" * 5000]
TEXTS = [
    *("", " ", "\0", "\r", "a\rb", "\n", "\x1b[31mred", "[/x]", "[bold]", "$x_{1$", "../../outside/secret.txt"),
    *("\u202eabc", "\u200b", "e\u0301", "猫", "🐶", "%s%n", "{id}", "{", "nan", "None", "-", "=1+1", "'", '"', ","),
    *("a" * 300, "a" * 70_000, "\\", "*", "**", "[[[[", "id", "fold", "(0, 1)", "[0, 1", "{'a': 1}", "1e999", "~", "/"),
]


def text(chance: random.Random) -> str:
    """A text that somebody, or an attacker, might write."""
    if chance.random() < 0.7:
        return chance.choice(TEXTS)
    return "".join(
        chr(chance.choice((chance.randrange(32, 127), chance.randrange(0xD7FF))))
        for _ in range(chance.randrange(1, 12))
    )


def value(chance: random.Random, depth: int = 0) -> Any:
    """A value as in JSON or YAML, of any kind."""
    kind = chance.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return chance.choice(NUMBERS)
    if kind < 4:
        return text(chance)
    if kind == 4:
        return None
    if kind < 7:
        return [value(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 3, 50)))]
    return {text(chance): value(chance, depth + 1) for _ in range(chance.choice((0, 1, 3)))}


def mutated(data: Any, chance: random.Random) -> Any:
    """`data` with a value somewhere in it replaced, removed or doubled."""
    if isinstance(data, dict) and data and chance.random() < 0.85:
        changed, key = dict(data), chance.choice(list(data))
        if chance.random() < 0.1:
            del changed[key]
        elif chance.random() < 0.1:
            changed[text(chance)] = changed[key]
        else:
            changed[key] = mutated(data[key], chance)
        return changed
    if isinstance(data, list) and data and chance.random() < 0.8:
        place = chance.randrange(len(data))
        return [*data[:place], mutated(data[place], chance), *data[place + chance.randrange(2) :]]
    return value(chance)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with bytes flipped, cut, doubled, or put in."""
    changed, kind = bytearray(data), chance.randrange(6)
    place = chance.randrange(len(data) or 1)
    if kind == 0:
        return bytes(changed[:place])
    if kind == 1:
        return bytes(changed[:place]) + chance.randbytes(chance.randrange(1, 50)) + bytes(changed[place:])
    if kind == 2:
        return bytes(changed[:place]) * 2 + bytes(changed[place:])
    if kind == 3:
        return bytes(changed[:place]) + text(chance).encode() + bytes(changed[place:])
    for _ in range(chance.randrange(1, 20) if data else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)
