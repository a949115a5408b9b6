"""Adapters of experiment trackers. Their libraries are imported where they are used: none is a dependency."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_SECONDS = 20  # the longest wait for a server


class Tracker(Protocol):
    """A tracker of one project. Any method may raise any exception."""

    def start(self, name: str, *, parent: str | None, known: str | None, config: Mapping[str, Any]) -> str:
        """The id of the run `name` below the run `parent`: a new one, or that of an earlier command, `known`."""

    def log(self, id_: str, step: int, values: Mapping[str, float]) -> None:
        """Add the values of one step to a run that was started."""

    def store(self, id_: str, files: Sequence[Path]) -> None:
        """Keep copies of `files` with a run that was started."""

    def close(self) -> None:
        """End all runs that were started."""


class TensorBoard:
    """Event files in `folder`, one directory per run; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, project: str, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make, self._folder = SummaryWriter, folder / "tensorboard" / _plain(project)
        self._writers: dict[str, Any] = {}

    def start(self, name: str, *, parent: str | None, known: str | None, config: Mapping[str, Any]) -> str:  # noqa: D102
        id_ = known or (f"{_plain(name)}-{uuid.uuid4().hex[:8]}" if parent is None else f"{parent}/{_plain(name)}")
        self._writers[id_] = self._make(str(self._folder / id_))
        if known is None:
            self._writers[id_].add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))
        return id_

    def log(self, id_: str, step: int, values: Mapping[str, float]) -> None:  # noqa: D102
        for key, value in values.items():
            self._writers[id_].add_scalar(key, value, step)
        self._writers[id_].flush()

    def store(self, id_: str, files: Sequence[Path]) -> None:  # noqa: D102
        for file in files:
            shutil.copy(file, self._folder / id_)

    def close(self) -> None:  # noqa: D102
        for writer in self._writers.values():
            writer.close()


class MLflow:
    """A parent run with a nested run per training, at MLFLOW_TRACKING_URI or MLflow's default place."""

    def __init__(self, project: str, _: Path) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_SECONDS))  # else a lost server takes minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        found = self._client.get_experiment_by_name(project)
        self._experiment = found.experiment_id if found else self._client.create_experiment(project)
        self._started: list[str] = []

    def start(self, name: str, *, parent: str | None, known: str | None, config: Mapping[str, Any]) -> str:  # noqa: D102
        if known is None:
            tags = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent} if parent else {})
            known = str(self._client.create_run(self._experiment, tags=tags).info.run_id)
            for key, value in config.items():
                self._client.log_param(known, _plain(key), str(value)[:500])
        else:
            self._client.update_run(known, status="RUNNING")
        self._started.append(known)
        return known

    def log(self, id_: str, step: int, values: Mapping[str, float]) -> None:  # noqa: D102
        for key, value in values.items():
            self._client.log_metric(id_, _plain(key), value, step=step)

    def store(self, id_: str, files: Sequence[Path]) -> None:  # noqa: D102
        for file in files:
            self._client.log_artifact(id_, str(file))

    def close(self) -> None:  # noqa: D102
        for id_ in self._started:
            self._client.set_terminated(id_)


class _Runs:
    """The part that wandb and trackio share: run objects by id, in a group that is named by the parent's id."""

    def __init__(self, project: str, _: Path) -> None:
        self._project, self._runs = project, dict[str, Any]()

    def log(self, id_: str, step: int, values: Mapping[str, float]) -> None:
        self._runs[id_].log(dict(values), step=step)

    def close(self) -> None:
        for run in self._runs.values():
            run.finish()


class WandB(_Runs):
    """A run per training in the group of the parent run."""

    def start(self, name: str, *, parent: str | None, known: str | None, config: Mapping[str, Any]) -> str:  # noqa: D102
        import wandb

        id_ = known or uuid.uuid4().hex[:12]
        self._runs[id_] = wandb.init(
            project=self._project,
            id=id_,
            name=name,
            group=parent or id_,
            config=dict(config),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(init_timeout=_SECONDS, silent=True),
        )
        return id_

    def store(self, id_: str, files: Sequence[Path]) -> None:  # noqa: D102
        import wandb

        artifact = wandb.Artifact(f"run-{id_}", type="run")
        for file in files:
            artifact.add_file(str(file))
        self._runs[id_].log_artifact(artifact)


class Trackio(_Runs):
    """A run per training in the group of the parent run, in Trackio's local database or its server."""

    def start(self, name: str, *, parent: str | None, known: str | None, config: Mapping[str, Any]) -> str:  # noqa: D102
        import trackio

        id_ = known or f"{name}-{uuid.uuid4().hex[:8]}"
        self._runs[id_] = trackio.init(
            project=self._project, name=id_, group=parent or id_, config=dict(config), resume="allow", embed=False
        )
        return id_

    def store(self, id_: str, files: Sequence[Path]) -> None:  # noqa: ARG002, D102
        import trackio

        for file in files:
            trackio.save(str(file), project=self._project)


def _plain(name: str) -> str:
    """`name` with only the characters that trackers and file systems take, at most 200."""
    return re.sub(r"[^\w\-. ]", "_", name)[:200].strip(". ") or "_"


TRACKERS: dict[str, Callable[[str, Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}
