"""Runs a bundle on its target: finds the competition's files, predicts, writes the submission."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

from pipeline.config import CompetitionConfig
from pipeline.device import keep_freed_memory
from pipeline.errors import CompetitionError, listing
from pipeline.run.folder import RunFolder
from pipeline.run.records import Thresholds
from pipeline.run.submission.submit import Submitted, submit
from pipeline.run.submission.test_thresholds import choose_decision_rule
from pipeline.run.trained_run import TrainedRun, open_run
from pipeline.thresholds.row_rules import row_rules

MEAN = "mean"
"""The folder with the thresholds of several runs, and the mean of their out-of-fold probabilities."""
_DEPTH = 3


def predict_bundle(home: Path, data: Path, out: Path) -> Submitted:
    """Predict the test images of the competition that lies in `data`, or in a folder below it, into the file `out`.

    Args:
        home: the folder `model` of the bundle.
        data: a folder; the competition's own folder may be up to three levels below.
        out: an earlier output of a bundle is replaced.

    Raises:
        PipelineError: the competition's files are not found; or as `submit`.
    """
    keep_freed_memory()
    runs = [open_run(RunFolder.at(path)) for path in sorted((home / "runs").iterdir())]
    root = find_data(runs[0].config.competition, data)
    runs = [_moved(run, root) for run in runs]
    fitted, first = None, runs[0]
    if len(runs) > 1:
        folder = RunFolder(home / MEAN)
        mean = dataclasses.replace(first, folder=folder, thresholds=Thresholds.load(folder.thresholds))
        fitted = choose_decision_rule(
            [mean], row_rules(first.config.submission, first.config.competition, first.labels)
        )
    return submit(runs, views=None, out=out, images=None, sample=None, fitted=fitted)


def find_data(competition: CompetitionConfig, place: Path) -> Path:
    """The one folder at `place`, or up to three levels below, that holds the competition's test files.

    Raises:
        CompetitionError: there is none, or there are several.
    """
    template = competition.images.test_template or competition.images.template or "."
    wanted = competition.sample_submission or competition.test or PurePosixPath(template).parts[0]
    for depth in range(_DEPTH + 1):
        folders = sorted(place.glob("*/" * depth)) if depth else [place]
        found = [path for path in folders if (path / wanted).exists()]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise CompetitionError(
        f"the competition's folder is not found in {place}",
        expected=f"one folder that holds {wanted}",
        got=listing(found) if found else "none",
        remedy="attach the competition's data, or name its folder: python script.py DATA OUT.csv",
    )


def _moved(run: TrainedRun, root: Path) -> TrainedRun:
    competition = run.config.competition.model_copy(update={"root": str(root)})
    return dataclasses.replace(run, config=run.config.model_copy(update={"competition": competition}))
