"""Reports a run to experiment trackers: one run for the cross-validation, one below it per fold and seed model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline import processes
from pipeline.config import Config, changed_keys
from pipeline.events import EpochFinished, Event, Fold, FoldFinished, Listener, Note, RunOpened
from pipeline.report.curves import read_epochs
from pipeline.report.trackers import TRACKERS, Tracker
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores, Tracked

_WHOLE = ""  # the name of the cross-validation among the trainings


class Tracking:
    """A listener that passes each event on, and sends new epochs to the trackers in `tracking.to`.

    The epochs come from `epochs.jsonl`, and `tracking.json` remembers what was sent: a resumed run continues its runs
    there, and no step is sent twice. It is written before a step is sent, so a kill between the two loses that step.
    A tracker that fails is noted once and left alone; the training goes on. Of several processes the first one sends.
    """

    def __init__(self, config: Config, run: RunFolder, listen: Listener) -> None:
        self._config, self._run, self._listen = config, run, listen
        self._trackers: dict[str, Tracker] = {}
        self._started: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        """Pass the event on, then track it. Raises what the listener raises."""
        self._listen(event)
        if isinstance(event, RunOpened) and processes.is_first():
            for name in self._config.tracking.to:
                self._try([name], self._open)
        elif isinstance(event, EpochFinished | FoldFinished):
            self._try([*self._trackers], lambda name: self._send_epochs(name, event.fold))

    def finish(self, scores: Scores | None) -> None:
        """Send the scores, the config, the thresholds and the report, and end the runs."""
        if scores is not None:
            self._try([*self._trackers], lambda name: self._send_scores(name, scores))
        self._try([*self._trackers], lambda name: self._trackers[name].close())

    def _try(self, names: Iterable[str], send: Callable[[str], None]) -> None:
        for name in names:
            try:
                send(name)
            except Exception as error:  # noqa: BLE001 (a foreign library and a network: nothing of it may end a training)
                self._trackers.pop(name, None)
                absent = isinstance(error, ImportError)
                act = f"install the extra {name}" if absent else "check its server and its account here"
                self._listen(
                    Note(
                        f"tracking.to: {name} failed and gets nothing more from this command: {error}",
                        remedy=f"{act}; the training goes on without it",
                    )
                )

    def _open(self, name: str) -> None:
        self._trackers[name] = TRACKERS[name](self._config.tracking.project, self._run.path.parent / ".tracking")
        self._id(name, _WHOLE)

    def _id(self, name: str, training: str) -> str:
        """The id of a training at a tracker; it is started there by each command once."""
        ids = self._state().ids.get(name, {})
        if (name, training) not in self._started:
            whole = self._run.path.name
            id_ = self._trackers[name].start(
                f"{whole} {training}".strip(),
                parent=ids[_WHOLE] if training else None,
                known=ids.get(training),
                config={key: now for key, (_, now) in changed_keys(Config(), self._config).items()},
            )
            self._started.add((name, training))
            ids = {**ids, training: id_}
            state = self._state()
            Tracked({**state.ids, name: ids}, state.steps).save(self._run.tracking)
        return ids[training]

    def _send_epochs(self, name: str, fold: Fold) -> None:
        folder = self._run.fold(fold).path.name
        for training, records in read_epochs(self._run).items():
            for record in records if training.split("/")[0] == folder else ():
                if record["epoch"] > self._state().steps.get(name, {}).get(training, 0):
                    numbers = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
                    self._send(name, training, int(numbers.pop("epoch")), numbers)

    def _send_scores(self, name: str, scores: Scores) -> None:
        step = self._state().steps.get(name, {}).get(_WHOLE, 0) + 1
        found = {f"{scores.metric} cross-fitted": scores.cross_fitted.pooled, "mAP": scores.threshold_free.map}
        found[f"{scores.metric} in-sample"] = scores.in_sample.pooled
        self._send(name, _WHOLE, step, {key: value for key, value in found.items() if value is not None})
        files = (self._run.config, self._run.scores, self._run.thresholds, self._run.report)
        self._trackers[name].store(self._id(name, _WHOLE), [file for file in files if file.exists()])

    def _send(self, name: str, training: str, step: int, values: dict[str, float]) -> None:
        id_, state = self._id(name, training), self._state()
        steps = {**state.steps.get(name, {}), training: step}
        Tracked(state.ids, {**state.steps, name: steps}).save(self._run.tracking)
        self._trackers[name].log(id_, step, values)

    def _state(self) -> Tracked:
        return Tracked.load(self._run.tracking) if self._run.tracking.exists() else Tracked()
