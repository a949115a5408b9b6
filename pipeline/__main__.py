"""Every command beside run_cv.py and make_submission.py: `python -m pipeline VERB`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline import processes
from pipeline.commands import run_command
from pipeline.console import make_console


class Verb(NamedTuple):
    """A command: one line for the list of commands, an example, its arguments, and what it calls."""

    summary: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _new_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", type=Path, metavar="TRAIN.csv", help="the training table")
    parser.add_argument("images", type=Path, metavar="IMAGES_DIR", help="the folder of the training images")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: configs/<the competition's folder>.yaml")


def _new(given: argparse.Namespace) -> None:
    from pipeline.competition.guess.first_config import new_config
    from pipeline.report.live import LiveProgress
    from pipeline.report.tables import print_guess

    console = make_console()
    print_guess(console, new_config(given.train, given.images, out=given.out, listen=LiveProgress(console)))


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="for example configs/demo.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="for example images.size=64")
    parser.add_argument("--run", metavar="NAME", help="the folder in runs/ for audit.json (default: the config's name)")


def _check(given: argparse.Namespace) -> None:
    from pipeline.audit.check import check
    from pipeline.config import load_config
    from pipeline.report.live import LiveProgress
    from pipeline.run.folder import RunFolder

    run = RunFolder.named(given.config.stem if given.run is None else given.run)
    console = make_console()
    with LiveProgress(console) as progress:
        check(load_config(given.config, given.overrides), run, console=console, listen=progress)


def _validate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="for example configs/demo.yaml")
    parser.add_argument("file", type=Path, metavar="FILE", help="a submission, made by whatever tool")


def _validate(given: argparse.Namespace) -> None:
    from pipeline.competition.submission.validate_file import require_valid
    from pipeline.config import load_config
    from pipeline.report.live import LiveProgress
    from pipeline.report.tables import print_validated

    console = make_console()
    require_valid(load_config(given.config), given.file, LiveProgress(console))
    print_validated(console, given.file)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="RUN", help="a scored run, for example runs/demo")
    parser.add_argument("second", type=Path, metavar="RUN", help="another one on the same training table")


def _compare(given: argparse.Namespace) -> None:
    from pipeline.report.compare import print_comparison
    from pipeline.run.folder import RunFolder

    print_comparison(make_console(), RunFolder.at(given.first), RunFolder.at(given.second))


def _truth_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run with a submission, for example runs/demo")
    parser.add_argument("truth", type=Path, metavar="CSV", help="the answers, in the form of the training table")


def _truth(given: argparse.Namespace) -> None:
    from pipeline.report.truth import print_truth
    from pipeline.run.folder import RunFolder

    print_truth(make_console(), RunFolder.at(given.run), given.truth)


def _curves_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run, finished or not, for example runs/demo")
    parser.add_argument("out", type=Path, metavar="OUT.png")


def _curves(given: argparse.Namespace) -> None:
    from pipeline.report.curves import save_curves
    from pipeline.run.folder import RunFolder

    save_curves(make_console(), RunFolder.at(given.run), given.out)


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, for example runs/demo")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="number of images (default 16)")


def _figures(given: argparse.Namespace) -> None:
    from pipeline.report.figures import save_sheet
    from pipeline.run.folder import RunFolder

    save_sheet(make_console(), RunFolder.at(given.run), given.out, count=given.count)


def _attention_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run, for example runs/demo")
    parser.add_argument("image", type=Path, nargs="+", metavar="IMAGE", help="its file, or one per channel")
    parser.add_argument("--labels", metavar="A,B", help="the labels to draw (default: the predicted ones)")
    parser.add_argument("--fold", type=int, default=0, metavar="N", help="the fold of the model (default 0)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="default: IMAGE-attention.png, here")


def _attention(given: argparse.Namespace) -> None:
    from pipeline.report.attention import save_attention
    from pipeline.run.folder import RunFolder

    labels = None if given.labels is None else given.labels.split(",")
    save_attention(make_console(), RunFolder.at(given.run), given.image, labels=labels, fold=given.fold, out=given.out)


VERBS: dict[str, Verb] = {
    "new": Verb(
        "write a first config for a competition",
        "new data/mine/train.csv data/mine/train",
        _new_arguments,
        _new,
    ),
    "check": Verb(
        "look for mistakes and leaks in the data; train nothing",
        "check configs/demo.yaml",
        _check_arguments,
        _check,
    ),
    "validate": Verb(
        "tell whether a scorer would take a submission",
        "validate configs/demo.yaml submission.csv",
        _validate_arguments,
        _validate,
    ),
    "compare": Verb(
        "compare the scores of two runs, with an interval",
        "compare runs/demo runs/second",
        _compare_arguments,
        _compare,
    ),
    "truth": Verb(
        "score a submission once the true answers are known",
        "truth runs/demo data/digit_scenes/test_truth.csv",
        _truth_arguments,
        _truth,
    ),
    "curves": Verb("draw the learning curves of a run", "curves runs/demo curves.png", _curves_arguments, _curves),
    "figures": Verb(
        "draw a sheet of training images with their out-of-fold predictions",
        "figures runs/demo sheet.png",
        _figures_arguments,
        _figures,
    ),
    "attention": Verb(
        "draw where a model looks for each label in an image",
        "attention runs/demo data/digit_scenes/test/TEST_0000.png",
        _attention_arguments,
        _attention,
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Commands of the pipeline, by their verb.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        example = f"example: python -m pipeline {verb.example}"
        added = verbs.add_parser(name, help=verb.summary, description=verb.summary, epilog=example)
        verb.add_arguments(added)
    return parser


def main(words: Sequence[str]) -> int:
    """The exit code of `python -m pipeline WORDS`; without any words the verbs are listed."""
    parser = make_parser()
    if not words:
        parser.print_help()
        return 0
    given = parser.parse_args(words)

    def run() -> None:
        processes.require_one(f"python -m pipeline {given.verb}")
        VERBS[given.verb].run(given)

    return run_command(run, shlex.join(["python", "-m", "pipeline", *words]))


def console_script() -> None:
    """Run the command line."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console_script()
