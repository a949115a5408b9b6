"""Train all folds of a config, fit and cross-fit thresholds, print the scores: `python run_cv.py CONFIG`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline import processes
from pipeline.audit.check import audit_competition
from pipeline.audit.findings import plural
from pipeline.audit.table import print_audit
from pipeline.commands import run_command
from pipeline.competition.folds import fold_table
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.competition.guess.first_config import new_config
from pipeline.competition.submission.validate_file import require_valid
from pipeline.config import Config, load_config, unused_keys
from pipeline.errors import CompetitionError, ConfigError
from pipeline.events import Event, Listener, RunOpened
from pipeline.files import write_json
from pipeline.report.console import (
    make_console,
    print_fold_table,
    print_guess,
    print_note,
    print_scores,
    print_validated,
)
from pipeline.report.live import LiveProgress
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, prepare
from pipeline.run.trained_run import about_lacking_models
from pipeline.search.search import Found, left_out_scores, run_search
from pipeline.search.study import TimeUsed
from pipeline.search.table import print_left_out, print_search

DEBUG = ("train.epochs=1", "search.trials=2", "search.epochs=1", "search.storage=null")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or `words` in its place."""
    parser = argparse.ArgumentParser(prog="run_cv.py", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="a YAML file, for example configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="for example train.epochs=10")
    parser.add_argument("--run", metavar="NAME", help="the run's folder in runs/ (default: the config's name)")
    parser.add_argument("--folds", metavar="0,2", help="these folds only; finished: train none, score those")
    parser.add_argument("--fresh", action="store_true", help="delete what the run folder holds and start over")
    parser.add_argument("--debug", action="store_true", help="a few batches only, in runs/<name>-debug")
    parser.add_argument("--validate", type=Path, metavar="FILE", help="only say whether a scorer would take this file")
    parser.add_argument("--search", action="store_true", help="search better training settings first, see base.yaml")
    parser.add_argument("--search-only", action="store_true", help="search, but do not train all folds then")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials trained side by side (default 1)")
    parser.add_argument("--check", action="store_true", help="look for mistakes and leaks in the data; train nothing")
    parser.add_argument("--new", nargs=2, type=Path, metavar=("TRAIN.csv", "IMAGES_DIR"), help="guess a first config")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where --new writes it (default: configs/<folder>.yaml)"
    )
    parser.set_defaults(begun=False)  # `train` says so when the run is
    given = parser.parse_intermixed_args(words)
    if (given.config is None) == (given.new is None):
        parser.error("give the path of a config, or --new TRAIN.csv IMAGES_DIR to write one")
    return given


def main(arguments: argparse.Namespace) -> None:
    """What the arguments ask for: a first config, a look at a file, an audit of the data, or a run."""
    for alone in ("new", "validate", "check", "search", "search_only"):
        if getattr(arguments, alone):
            processes.require_one(f"--{alone.replace('_', '-')}")
    if arguments.new is not None:
        print_guess(make_console(), *new_config(*arguments.new, out=arguments.out))
        return
    overrides = [*arguments.overrides, *(DEBUG if arguments.debug else [])]
    overrides += ["search.then=stop"] if arguments.search_only else []
    config = load_config(arguments.config, overrides)
    if arguments.validate is not None:
        print_validated(make_console(), arguments.validate, require_valid(config, arguments.validate))
        return
    name = (arguments.config.stem if arguments.run is None else arguments.run) + ("-debug" if arguments.debug else "")
    run = RunFolder.named(name)
    if arguments.check:
        check(config, run)
        return
    train(arguments, config, run)


def train(arguments: argparse.Namespace, config: Config, run: RunFolder) -> None:
    """Everything is read, checked and built before the run folder is touched."""
    console = make_console()
    folds = None if arguments.folds is None else processes.from_first(lambda: parse_folds(arguments, config, run))
    fresh = arguments.fresh or arguments.debug
    searches = arguments.search or arguments.search_only
    if not fresh and not searches:
        processes.from_first(lambda: run.check(config))
    with LiveProgress(console) as progress:

        def listen(event: Event) -> None:
            arguments.begun = arguments.begun or isinstance(event, RunOpened)
            progress(event)

        plan = processes.from_first(lambda: prepare(config, debug=arguments.debug, listen=listen))
        console.print(f"{len(plan.table.ids)} images, {len(plan.table.labels)} labels; the run goes to {run.path}")
        print_fold_table(console, fold_table(plan.folds, plan.table.positives, plan.table.labels))
        for note in [*unused_keys(config), *plan.notes]:
            print_note(console, note)
        if searches:
            try:
                found = search_first(arguments, plan, run, fresh=fresh, listen=listen)
            except TimeUsed:
                console.print(
                    f"train.time_budget={config.train.time_budget} is used; the same command goes on searching"
                )
                return
            print_search(console, found.facts)
            console.print(f"best values: {run.search.best}; every trial: {run.search.trials}; figures beside them")
            if found.goes_on is None:
                if config.search.then == "cv":
                    console.print("another command trains the folds with the best values")
                return
            plan, fresh = found.plan, False
        scores = run_cv(plan, run, folds=folds, fresh=fresh, listen=listen)
    tell_end(console, plan, run, scores, searched=searches)


def tell_end(console: Console, plan: Plan, run: RunFolder, scores: Mapping[str, Any] | None, *, searched: bool) -> None:
    """The scores of the finished folds, if there are any, and what comes next."""
    unfinished = scores is None or scores["folds"] != scores["of_folds"]
    lacks_full_fit = plan.config.train.full_fit and not run.fold(FULL_FIT).is_trained(plan.config.train)
    if (unfinished or lacks_full_fit) and time.monotonic() > plan.deadline:
        console.print(f"train.time_budget={plan.config.train.time_budget} is used; all is saved")
    lacking = None if run.finished_folds(plan.config.train) else about_lacking_models(run, plan.config)
    if scores is None and lacking is not None:
        console.print(f"no fold has a model for each of train.seeds={plan.config.train.seeds}: {lacking}", markup=False)
        return
    if scores is None:
        console.print("scores follow when more is finished: run it again without --folds, and without --fresh")
        return
    print_scores(console, scores)
    if unfinished:
        console.print("the same command without --folds and without --fresh goes on with the other folds")
    elif searched:
        print_left_out(console, left_out_scores(plan, run))
    if lacks_full_fit:
        console.print("the full fit is not finished: the same command without --folds goes on with it after the folds")
    console.print(f"next: python make_submission.py {run.path}")


def search_first(arguments: argparse.Namespace, plan: Plan, run: RunFolder, *, fresh: bool, listen: Listener) -> Found:
    """The study that `--search` asks for, brought to its end."""
    if arguments.workers < 1:
        raise ConfigError(f"--workers: {arguments.workers} is not possible", remedy="give 1 or more")
    return run_search(
        plan,
        run,
        workers=arguments.workers,
        fresh=fresh,
        command=shlex.join(["python", *sys.argv]),
        config=str(arguments.config),
        listen=listen,
    )


def check(config: Config, run: RunFolder) -> None:
    """Audit the competition and write what was found. Raises CompetitionError where there are errors."""
    run.require_ours()
    console = make_console()
    with LiveProgress(console) as progress:
        audit = audit_competition(config, listen=progress)
    run.begin(fresh=False)
    write_json(run.audit, audit.to_json())
    print_audit(console, audit)
    if not audit.ready:
        raise CompetitionError(
            f"--check found {plural(len(audit.errors), 'error')}",
            remedy=f"mend what is listed above; {run.audit} holds all of it",
        )


def parse_folds(arguments: argparse.Namespace, config: Config, run: RunFolder) -> list[int]:
    """Fold numbers joined by commas, or the `finished` folds of `run`: what these lack is not trained."""
    text: str = arguments.folds
    if text == "finished":
        for option in ("fresh", "debug"):
            if getattr(arguments, option):
                raise ConfigError(
                    f"--folds finished trains nothing, --{option} starts over",
                    remedy="leave out one of the two",
                )
        return run.finished_folds(config.train)
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(
            f"--folds: '{text}' is not a list of fold numbers",
            remedy="write it like --folds 0 or --folds 0,2, or --folds finished",
        )
    return [int(part) for part in text.split(",")]


def command(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """The exit code of what `arguments` ask for; `words` are the command as it was written, to say how to go on."""
    return run_command(lambda: main(arguments), after_interrupt=lambda: how_to_go_on(arguments, words))


def how_to_go_on(arguments: argparse.Namespace, words: Sequence[str]) -> str:
    """What an interruption leaves, and the command that goes on: with --fresh as long as the run is not begun."""
    if arguments.debug:
        kept = "nothing is kept of a --debug run"
    elif arguments.begun:
        kept = "the state is saved after every epoch and every train.checkpoint_minutes"
        words = [word for word in words if word != "--fresh"]
    else:
        kept = "it had not begun to train"
    return f"{kept}; to go on:\n  {shlex.join(['python', *words])}"


def run(*words: str) -> None:
    """What `python run_cv.py WORDS` does, for `notebook_launcher(run_cv.run, args=WORDS)`.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    code = command(parse_arguments(words), ["run_cv.py", *words])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(command(parse_arguments(), sys.argv))
