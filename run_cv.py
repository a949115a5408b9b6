"""Train all folds of a config, fit and cross-fit thresholds, print the scores: `python run_cv.py CONFIG`."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import interrupts, processes
from pipeline.commands import end_process, explain_interruption, run_command

DEBUG = ("train.epochs=1", "search.trials=2", "search.epochs=1", "search.storage=null")


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The arguments in `words`."""
    parser = argparse.ArgumentParser(prog="run_cv.py", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file, for example configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="for example train.epochs=10")
    parser.add_argument("--run", metavar="NAME", help="the run's folder in runs/ (default: the config's name)")
    parser.add_argument("--folds", metavar="0,2", help="train these folds only; finished: train none, score those")
    parser.add_argument("--fresh", action="store_true", help="delete what the pipeline wrote in the run folder first")
    parser.add_argument("--debug", action="store_true", help="a few batches only, in runs/<name>-debug")
    parser.add_argument("--search", action="store_true", help="first search better training settings, see base.yaml")
    parser.add_argument("--quiet", action="store_true", help="print notes and scores, no progress")
    parser.add_argument("--autopilot", metavar="6h", help="spend this time on trainings, a blend and a submission")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials trained side by side (default 1)")
    return parser.parse_intermixed_args(words)


def main(arguments: argparse.Namespace, command: str) -> None:
    """Train alone, or together with the processes that a launcher started."""
    if processes.count() == 1:
        train(arguments, command)
        return
    for option in ("search", "autopilot"):
        if getattr(arguments, option):
            processes.require_one(f"--{option}")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else torch reports in fifty lines that a process ended
    with interrupts.deferred():
        from pipeline.training.distributed import joined
    with joined():
        train(arguments, command)


def train(arguments: argparse.Namespace, command: str) -> None:
    """Read, check and build everything, then train; only then is the run folder changed."""
    from pipeline.config import load_config

    begun = time.monotonic()
    budget = None if arguments.autopilot is None else _seconds(arguments)
    config = load_config(arguments.config, [*arguments.overrides, *(DEBUG if arguments.debug else ())])
    with interrupts.deferred():  # torch and the rooms that use it, which a mistake in the config need not wait for
        from pipeline.autopilot.autopilot import autopilot
        from pipeline.console import make_console
        from pipeline.device import keep_freed_memory
        from pipeline.report.live import LiveProgress
        from pipeline.report.tables import print_outcome, print_plan
        from pipeline.report.tracking import Tracking
        from pipeline.run.cv import parse_folds, run_cv
        from pipeline.run.folder import RunFolder
        from pipeline.run.plan import prepare
        from pipeline.search.search import left_out_scores, run_search
        from pipeline.search.table import print_found, print_left_out
        from pipeline.training.distributed import from_first
    keep_freed_memory()
    name = arguments.config.stem if arguments.run is None else arguments.run
    run = RunFolder.named(name, debug=arguments.debug)
    fresh, console = arguments.fresh or arguments.debug, make_console()
    with LiveProgress(console, quiet=arguments.quiet) as progress:
        explain_interruption(progress, command, debug=arguments.debug)
        if budget is not None:
            autopilot(
                arguments.config,
                arguments.overrides,
                name,
                budget=budget,
                begun=begun,
                fresh=arguments.fresh,
                console=console,
                listen=progress,
            )
            return
        folds = from_first(lambda: parse_folds(arguments.folds, config, run, fresh=fresh))
        if not fresh and not arguments.search:
            from_first(lambda: run.check(config))
        plan = from_first(lambda: prepare(config, debug=arguments.debug, listen=progress))
        if not arguments.quiet:
            print_plan(console, plan, run)
        if arguments.search:
            found = run_search(plan, run, workers=arguments.workers, fresh=fresh, command=command, listen=progress)
            if found is None:
                return
            print_found(console, found.facts, run.search)
            if config.search.then == "stop":
                return
            plan, fresh = found.plan, False
        tracking = Tracking(plan.config, run, progress)
        scores = run_cv(plan, run, folds=folds, fresh=fresh, listen=tracking)
        print_outcome(console, plan, run, scores)
        if scores is not None and time.monotonic() < plan.deadline:
            from pipeline.report.page.write import save_run_report  # matplotlib, which a training need not wait for

            from_first(lambda: save_run_report(console, run))
        tracking.finish(scores)
        if arguments.search and scores is not None and scores.complete:
            print_left_out(console, left_out_scores(plan, run))


def _seconds(arguments: argparse.Namespace) -> float:
    """The seconds of `--autopilot`."""
    from pipeline.config import seconds_of
    from pipeline.errors import ConfigError

    if arguments.search or arguments.debug or arguments.folds:
        raise ConfigError(
            "--autopilot chooses trainings and folds itself", remedy="leave --search, --debug and --folds away"
        )
    if not re.fullmatch(r"0|(?=.)(\d+h)?(\d+m)?(\d+s)?", arguments.autopilot):
        raise ConfigError(
            f"--autopilot {arguments.autopilot}",
            expected="a time such as 6h, 1h30m or 90s; or 0 for the plan only",
            remedy="correct --autopilot",
        )
    return seconds_of(arguments.autopilot)


def command(words: Sequence[str]) -> int:
    """The exit code of `python run_cv.py WORDS`."""
    arguments, line = parse_arguments(words), shlex.join(["python", "run_cv.py", *words])
    return run_command(lambda: main(arguments, line), line)


def run(*words: str) -> None:
    """Run `python run_cv.py WORDS`, also as `notebook_launcher(run_cv.run, args=WORDS)`; SystemExit on an error."""
    code = command(words)
    if code:
        sys.exit(code)


def console_script() -> None:
    """Run the command line."""
    end_process(lambda: command(sys.argv[1:]))


if __name__ == "__main__":
    console_script()
