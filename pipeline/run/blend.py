"""Blends finished runs and predictions of other tools into a run folder: `python -m pipeline blend RUN...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.competition.csvs import dialect_of, read_table
from pipeline.competition.folds import ALWAYS_TRAIN, cross_fitting_parts, group_numbers
from pipeline.competition.table import TrainTable, read_train
from pipeline.config import CompetitionConfig, Config, as_metric_config, load_config
from pipeline.errors import ConfigError, RunError, listing, nearest
from pipeline.events import Listener
from pipeline.files import read_folds, read_predictions, write_csv, write_parquet
from pipeline.metrics.registry import Metric, get_metric
from pipeline.prediction.blending import BlendFit, fit_blend, member_logits
from pipeline.run.folder import RunFolder
from pipeline.run.records import BlendRecord, MemberRecord, Scores, SubmissionRecord, finite
from pipeline.run.score import score_rows
from pipeline.run.submission.joined_out_of_fold import join_out_of_fold
from pipeline.run.trained_run import TrainedRun, open_run, refuse_repeats
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE
from pipeline.thresholds.row_rules import row_rules


class _Rows(NamedTuple):
    """The N training rows that all members predict, with M out-of-fold tables of the table's labels, by id."""

    table: TrainTable
    folds: pd.DataFrame  # of the whole training table, see `read_folds`
    tables: list[pd.DataFrame]
    notes: list[str]


def blend(
    runs: Sequence[Path], foreign: Sequence[str], *, config: Path | None, out: Path, listen: Listener
) -> tuple[BlendRecord, Scores]:
    """Blend members, and write the blend to the folder `out`, where an earlier blend is replaced.

    Args:
        runs: folders of finished runs with a submission of their own, or of blends.
        foreign: NAME=OOF,TEST of members by other tools; CSV or parquet with an id and a probability per label.
        config: of the competition; by default the config of the first run.
        out: the folder.
        listen: gets notes on the tables.

    Raises:
        PipelineError: there are fewer than two members, they do not fit together, or `out` holds something else.
    """
    others = [_parsed(text) for text in foreign]
    names = [*map(str, runs), *(name for name, *_ in others)]
    if len(names) < 2:
        raise ConfigError(
            "a blend needs at least two members",
            got=listing(names) or "none",
            remedy="give more runs, or --foreign NAME=OOF.csv,TEST.csv",
        )
    refuse_repeats(names)
    own = [open_run(RunFolder.at(path)) for path in runs]
    if not own and config is None:
        raise ConfigError("without a run the competition is not known", remedy="give --config CONFIG")
    settings = own[0].config if config is None else load_config(config)
    folder = _folder(out, own)
    train = read_train(settings.competition, listen)
    metrics = _metrics(settings, train, trusted=config is not None)
    given = [[_read_foreign(path, settings.competition, train, listen) for path in paths] for _, *paths in others]
    tests = [*(_test_of(run, train) for run in own), *(test for _, test in given)]
    for name, test in zip(names[1:], tests[1:], strict=True):
        if {*test.index} != {*tests[0].index}:
            raise RunError(
                f"{names[0]} and {name} predict other test rows",
                got=f"{len({*test.index} ^ {*tests[0].index})} ids in one of them only",
                remedy="give predictions of the same test set",
            )
    rows = _join(own, [oof for oof, _ in given], train)
    row_folds = rows.folds["fold"].loc[list(rows.table.ids)].to_numpy(np.int64)
    parts, _ = cross_fitting_parts(
        rows.table.ids,
        row_folds,
        rows.table.positives,
        train.labels,
        seed=settings.folds.seed,
        groups=rows.table.groups,
    )
    logits = member_logits([table.to_numpy(np.float64) for table in rows.tables])
    fit = fit_blend(
        metrics[0],
        rows.table.truths,
        logits,
        parts,
        rules=row_rules(settings.submission, settings.competition, train.labels),
        groups=group_numbers(rows.table.groups),
    )
    test = pd.DataFrame(
        fit.blend.apply(logits, member_logits([test.loc[tests[0].index].to_numpy(np.float64) for test in tests])),
        columns=list(train.labels),
    )
    test.insert(0, "id", list(tests[0].index))
    notes = [
        *rows.notes,
        *(f"{run.folder.path}: {BEST_EPOCH_NOTE}" for run in own if run.config.train.select == "best"),
    ]
    record = _record(fit, names, train.labels, notes)
    folder.begin(fresh=True)
    with folder.in_use():
        write_parquet(folder.blended, test)
        folder.write_config(settings)
        write_csv(folder.folds, rows.folds.reset_index())
        of_folds = sorted({*rows.folds["fold"].tolist()} - {ALWAYS_TRAIN})
        scores = score_rows(
            folder, settings, metrics, rows.table, fit.probabilities, row_folds, of_folds=of_folds, notes=notes
        )
        record.save(folder.blend)
    return record, scores


def _parsed(text: str) -> tuple[str, Path, Path]:
    name, _, paths = text.partition("=")
    oof, _, test = paths.partition(",")
    if not (name and oof and test):
        raise ConfigError(f"--foreign {text}", expected="NAME=OOF.csv,TEST.csv", remedy="correct --foreign")
    return name, Path(oof), Path(test)


def _metrics(settings: Config, train: TrainTable, *, trusted: bool) -> list[Metric]:
    specs = [settings.competition.metric, *settings.competition.also]
    if not trusted and any(as_metric_config(spec).function for spec in specs):
        raise ConfigError(
            "the run has a custom metric, which is not run from a run folder", remedy="give --config CONFIG"
        )
    return [get_metric(spec, train.labels, custom_functions=trusted) for spec in specs]


def _folder(out: Path, own: Sequence[TrainedRun]) -> RunFolder:
    """The folder of the blend. Raises RunError where it is another run, or a member."""
    folder = RunFolder.at(out)
    folder.require_ours()
    another = folder.has_trainings() or (folder.config.exists() and not folder.blended.exists())
    if another or any(run.folder.path.resolve() == folder.path.resolve() for run in own):
        raise RunError(f"{out} is a run already", remedy="give another --out FOLDER, such as --out runs/blend")
    return folder


def _read_foreign(path: Path, competition: CompetitionConfig, train: TrainTable, listen: Listener) -> pd.DataFrame:
    """Probabilities by id, with the columns of the training table's labels; other columns are left out."""
    id_column = competition.id
    if path.suffix == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            fault = ": no such file" if not path.exists() else f" cannot be read: {error}"
            raise RunError(f"{path}{fault}", remedy="correct --foreign") from None
    else:
        frame = read_table(path, id_column=id_column, key="--foreign", dialect=dialect_of(competition), listen=listen)
    missing = [name for name in (id_column, *train.labels) if name not in frame.columns]
    if missing:
        raise RunError(
            f"{path} has no column '{missing[0]}'{nearest(missing[0], map(str, frame.columns))}",
            expected=f"the columns {listing([id_column, *train.labels], 12)}",
            remedy="rename its columns",
        )
    table = frame.set_index(frame[id_column].astype(str))[list(train.labels)].apply(pd.to_numeric, errors="coerce")
    values = table.to_numpy(np.float64)
    if not ((values >= 0) & (values <= 1)).all() or table.index.duplicated().any():
        raise RunError(
            f"{path} does not hold predictions",
            expected="each id once, and a probability from 0 to 1 in each cell",
            remedy="write probabilities (the sigmoid of logits), one row per id",
        )
    return pd.DataFrame(table)


def _test_of(run: TrainedRun, train: TrainTable) -> pd.DataFrame:
    """The test probabilities of a run alone, by id."""
    folder, labels = run.folder, list(train.labels)
    if run.models:
        record = SubmissionRecord.load(folder.submitted) if folder.submitted.exists() else None
        if record is None or len(record.runs) != 1 or record.folds[0] != run.folds:
            raise RunError(
                f"{folder.path} holds no test predictions of this run alone",
                expected=f"{folder.test.name}, written since it was scored, without other runs",
                remedy=f"write them with python make_submission.py {folder.path}",
            )
    return read_predictions(folder.test if run.models else folder.blended, labels)[labels]


def _join(own: Sequence[TrainedRun], foreign: Sequence[pd.DataFrame], train: TrainTable) -> _Rows:
    notes = []
    if own:
        joined = join_out_of_fold([run.folder for run in own], train, train.labels)
        ids, tables = list(joined.ids), list(joined.tables)
        folds = read_folds(own[0].folder.folds)
        if any((table["fold"] != tables[0]["fold"]).any() for table in tables[1:]):
            notes.append(
                "the runs have different folds: weights are cross-fitted over those of the first, and the score may "
                "flatter a little"
            )
    else:
        ids, tables = list(train.ids), []
        folds = pd.DataFrame({"group": train.groups or "", "fold": 0}, index=pd.Index(ids, name="id"))
    shared = set(ids).intersection(*(table.index for table in foreign))
    if not shared:
        raise RunError(
            "no training row is predicted by all members",
            expected=f"ids such as {train.ids[0]}",
            got=listing([table.index[0] for table in foreign]),
            remedy="give out-of-fold predictions of this training table",
        )
    if len(shared) < len(train.ids):
        notes.append(f"the blend rests on the {len(shared)} of {len(train.ids)} training rows that all members predict")
    if foreign:
        notes.append("the folds of foreign members are not known: weights are cross-fitted over other parts")
    kept = [row for row, id_ in enumerate(train.ids) if id_ in shared]
    ids = [train.ids[row] for row in kept]
    groups = folds["group"].loc[ids].tolist()
    table = replace(train.take(kept), groups=tuple(groups) if any(groups) else None)
    return _Rows(table, folds, [each.loc[ids, list(train.labels)] for each in (*tables, *foreign)], notes)


def _record(fit: BlendFit, names: Sequence[str], labels: Sequence[str], notes: Sequence[str]) -> BlendRecord:
    figures = zip(fit.blend.weights.mean(axis=0), fit.alone, fit.left_out, fit.correlation, strict=True)
    return BlendRecord(
        members=tuple(
            MemberRecord(name, float(weight), *map(finite, rest))
            for name, (weight, *rest) in zip(names, figures, strict=True)
        ),
        mean=fit.blend.mean,
        kind=fit.blend.kind,
        weights={name: tuple(row) for name, row in zip(labels, fit.blend.weights.tolist(), strict=True)},
        scores={", ".join(method): finite(score) for method, score in fit.scores.items()},
        fold_methods=tuple(map(", ".join, fit.fold_methods)),
        notes=tuple(notes),
    )
