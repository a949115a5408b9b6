"""Custom metrics: a user's Python function in a file beside the config."""

from __future__ import annotations

import functools
import importlib.util
import math
import numbers
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.metrics.means import MetricValue
from pipeline.metrics.targets import Targets, split_targets


@dataclass(frozen=True)
class CustomFunction:
    """A user's function as a metric; it can be pickled, and another process reads the file again.

    The function gets copies of targets (N, K), 0/1 in uint8, or float64 with NaN if any cell is unknown, and of
    decisions or probabilities (N, K). It returns one number.

    Attributes:
        path: the Python file, which is run once in each process.
        function: the name of the function in it.
    """

    path: str
    function: str

    def __call__(self, targets: Targets, values: NDArray[Any]) -> MetricValue:
        """Calls the function. Raises ConfigError if it raises, or returns no finite number."""
        bits, known = split_targets(targets)
        function = self.load()
        copied = bits.copy() if known.all() else np.where(known, bits.astype(np.float64), np.nan)
        try:
            value = function(copied, np.array(values))
        except Exception as error:  # noqa: BLE001 (a user's code may raise anything)
            raise _wrong(f"{self} raised {type(error).__name__}: {error}{_line(error, self.path)}") from None
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
        # Numbers of numpy are Real, its bool is not.
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            got = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise _wrong(f"{self} returned {got}, not a number")
        if not math.isfinite(float(value)):
            raise _wrong(f"{self} returned {value}, not a finite number")
        return MetricValue(float(value))

    def load(self) -> Callable[[NDArray[Any], NDArray[Any]], Any]:
        """Loads the function from the file. Raises ConfigError if that fails."""
        return _load(self.path, self.function)

    def __str__(self) -> str:
        """FILE.py:FUNCTION, without the folder."""
        return f"{Path(self.path).name}:{self.function}"


def custom_function(text: str) -> CustomFunction:
    """The function that `text`, FILE.py:FUNCTION, names; it is not loaded yet."""
    path, _, name = text.rpartition(":")
    return CustomFunction(path, name)


def try_custom_metric(function: object, targets: Targets, *, takes: str) -> None:
    """Calls a `CustomFunction` once on targets (N, K) and random scores, to find its faults before the training.

    Does nothing for the function of a built-in metric. Raises ConfigError.
    """
    if isinstance(function, CustomFunction):
        scores = np.random.default_rng(0).random(np.shape(targets))
        function(targets, scores if takes == "probabilities" else (scores > 0.5).astype(np.uint8))


@functools.cache
def _load(path: str, name: str) -> Callable[[NDArray[Any], NDArray[Any]], Any]:
    if not Path(path).is_file():
        raise _wrong(f"{path}: no such file; the path is relative to the config")
    module_name = f"custom_metric_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a user's code may raise anything)
        raise _wrong(f"{path} cannot be run: {type(error).__name__}: {error}{_line(error, path)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise _wrong(f"{path} has no function '{name}'{nearest(name, found)}")
    return function  # type: ignore[no-any-return]


def _wrong(problem: str) -> ConfigError:
    return ConfigError(
        f"competition.metric: {problem}",
        expected="def score(targets, values) -> float, both arrays (N, K)",
        remedy="correct the function, or name a built-in metric",
    )


def _line(error: BaseException, path: str) -> str:
    """The last line of the user's file in the error's traceback."""
    inside = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f" (line {inside[-1]})" if inside else ""
