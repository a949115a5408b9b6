"""Predict the test images with all models of finished runs, write a validated submission: `make_submission.py RUN`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from pathlib import Path

from pipeline import interrupts, processes
from pipeline.commands import end_process, run_command


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make_submission.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs, for example runs/demo")
    parser.add_argument("--tta", metavar="VIEW,..", help="views instead of the run's, for example identity,hflip")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: submission.csv in the first run")
    parser.add_argument(
        "--folds", metavar="0,2", help="only these folds of each run; thresholds are fitted on their rows"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="another folder of the test images")
    parser.add_argument("--sample", type=Path, metavar="CSV", help="another sample submission")
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> None:
    """Read and check the runs, predict, write, print."""
    processes.require_one("make_submission.py")
    with interrupts.deferred():
        from rich.progress import Progress

        from pipeline.console import make_console
        from pipeline.device import keep_freed_memory
        from pipeline.report.tables import print_submitted
        from pipeline.run.cv import parse_folds
        from pipeline.run.folder import RunFolder
        from pipeline.run.submission.submit import submit
        from pipeline.run.trained_run import open_run
    keep_freed_memory()
    console = make_console()
    folders = [RunFolder.at(path) for path in arguments.runs]
    runs = [open_run(run, parse_folds(arguments.folds, run.read_config(), run, fresh=False)) for run in folders]
    bars = Progress(console=console, transient=True, disable=not console.is_terminal)
    with contextlib.ExitStack() as held, bars:
        if arguments.out is None:
            held.enter_context(runs[0].folder.in_use())
        bar = bars.add_task("test images", total=None)
        written = submit(
            runs,
            views=None if arguments.tta is None else arguments.tta.split(","),
            out=arguments.out,
            images=arguments.images,
            sample=arguments.sample,
            on_image=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    print_submitted(console, written)


def console_script() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    end_process(lambda: run_command(lambda: main(arguments), shlex.join(["python", *sys.argv])))


if __name__ == "__main__":
    console_script()
