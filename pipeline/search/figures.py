"""Figures of a study, drawn by Optuna: history, importances, slices, contour, timeline."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import optuna.visualization.matplotlib as draw
from matplotlib import pyplot
from matplotlib.text import Text
from optuna.exceptions import ExperimentalWarning

from pipeline.files import write_atomically
from pipeline.run.search_folder import SearchFolder
from pipeline.search.result import FEWEST_SCORES, importance_evaluator

_SLICES, _CONTOURS = 6, 3  # parameters in one figure


def save_figures(study: optuna.Study, folder: SearchFolder, *, score: str, ranked: Sequence[str]) -> list[str]:
    """Write the figures into the search folder and return a note on those that could not be drawn.

    Args:
        study: a study with at least one complete trial.
        folder: the folder of the search.
        score: the name of the score.
        ranked: the names of the parameters, the most important one first.
    """
    mpl.use("agg")
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    enough = len({trial.value for trial in complete}) >= FEWEST_SCORES
    pictures: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(study, target_name=score),
        "timeline": lambda: draw.plot_timeline(study),
    }
    if enough:
        pictures["slices"] = lambda: draw.plot_slice(study, params=list(ranked[:_SLICES]), target_name=score)
    if enough and len(ranked) > 1:
        pictures["importances"] = lambda: draw.plot_param_importances(
            study, evaluator=importance_evaluator(), target_name=score
        )
        pictures["contour"] = lambda: draw.plot_contour(study, params=list(ranked[:_CONTOURS]), target_name=score)
    titles = _titles(
        [trial.value for trial in complete if trial.value is not None], name=score, count=len(study.trials)
    )
    for name, make in pictures.items():
        _save(make, folder, name, title=titles[name])
    missing = sorted({"history", "timeline", "slices", "importances", "contour"} - {*pictures})
    return [f"too few complete trials or parameters for {', '.join(missing)}"] if missing else []


def _titles(scores: Sequence[float], *, name: str, count: int) -> dict[str, str]:
    """Titles with the range of the scores: a parameter may explain all of a very small variance."""
    trials = f"{len(scores)} of {count} trials that are complete"
    spread = f"{min(scores):.4f} to {max(scores):.4f}"
    return {
        "history": f"{name} of the {trials}, and the best so far",
        "timeline": "When each trial ran, and how it ended",
        "slices": f"{name} over each parameter, {spread} over the {trials}",
        "importances": f"Share of each parameter in the variance of {name},\n{spread} over the {trials}",
        "contour": f"{name} over pairs of parameters, {spread}; dots: the {trials}",
    }


def _save(make: Callable[[], Any], folder: SearchFolder, name: str, *, title: str) -> None:
    with warnings.catch_warnings(), mpl.rc_context({"text.parse_math": False}):  # names may hold $
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of matplotlib, on layouts
        axes = np.atleast_1d(make())
        figure = axes.flat[0].figure
        if axes.size == 1:
            axes.flat[0].set_title("", loc="left")
            axes.flat[0].set_title(title, fontsize=10)
        else:
            figure.suptitle(title, fontsize=10)
        rows, columns = axes.shape if axes.ndim == 2 else (1, len(axes))
        figure.set_size_inches(max(7.0, 3.6 * columns), max(4.2, 3.0 * rows))
        figure.draw_without_rendering()
        for text in figure.findobj(Text):  # powers of ten at an axis
            text.set_parse_math("\\mathdefault" in text.get_text())
        write_atomically(
            folder.figure(name),
            lambda temporary: figure.savefig(temporary, format="png", dpi=90, bbox_inches="tight"),
        )
    pyplot.close(figure)
