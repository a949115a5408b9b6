"""All commands except run_cv.py and make_submission.py: `python -m pipeline VERB`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import interrupts, processes
from pipeline.commands import end_process, run_command


class Argument(NamedTuple):
    """One argument of a verb; the last three fields are those of argparse. A name that begins with `--` is optional."""

    name: str
    metavar: str
    help: str
    type: Callable[[str], Any] = Path
    default: Any = None
    nargs: str | None = None


class Verb(NamedTuple):
    """A command: its line in the list of verbs, an example, the function it calls, its arguments."""

    summary: str
    example: str
    run: Callable[[argparse.Namespace], None]
    arguments: tuple[Argument, ...]


# Each verb imports what it needs: matplotlib and the models take seconds, and the list of verbs needs neither. A signal
# waits for the end of the imports, because libraries turn KeyboardInterrupt into other errors there.


def _new(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.audit.first_config import new_config
        from pipeline.console import make_console
        from pipeline.report.live import LiveProgress
        from pipeline.report.tables import print_guess

    console = make_console()
    print_guess(console, *new_config(given.train, given.images, out=given.out, listen=LiveProgress(console)))


def _check(given: argparse.Namespace) -> None:
    from pipeline.config import load_config

    config = load_config(given.config, given.overrides)
    with interrupts.deferred():
        from pipeline.audit.check import check
        from pipeline.console import make_console
        from pipeline.report.live import LiveProgress
        from pipeline.run.folder import RunFolder

    run = RunFolder.named(given.config.stem if given.run is None else given.run)
    console = make_console()
    with LiveProgress(console) as progress:
        check(config, run, console=console, listen=progress)


def _validate(given: argparse.Namespace) -> None:
    from pipeline.config import load_config

    config = load_config(given.config)
    with interrupts.deferred():
        from pipeline.competition.submission.validate_file import require_valid
        from pipeline.console import make_console
        from pipeline.report.live import LiveProgress
        from pipeline.report.tables import print_validated

    console = make_console()
    require_valid(config, given.file, LiveProgress(console), images=given.images)
    print_validated(console, given.file)


def _compare(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.compare import print_comparison
        from pipeline.run.folder import RunFolder

    print_comparison(make_console(), RunFolder.at(given.first), RunFolder.at(given.second))


def _truth(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.truth import print_truth
        from pipeline.run.folder import RunFolder

    print_truth(make_console(), RunFolder.at(given.run), given.truth)


def _curves(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.curves import save_curves
        from pipeline.run.folder import RunFolder

    save_curves(make_console(), RunFolder.at(given.run), given.out)


def _figures(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.figures import save_sheet
        from pipeline.run.folder import RunFolder

    save_sheet(make_console(), RunFolder.at(given.run), given.out, count=given.count)


def _attention(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.attention import save_attention
        from pipeline.run.folder import RunFolder

    labels = None if given.labels is None else given.labels.split(",")
    save_attention(make_console(), RunFolder.at(given.run), given.image, labels=labels, fold=given.fold, out=given.out)


def _report(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.page.write import save_report

    save_report(make_console(), given.runs, out=given.out)


_CONFIG = Argument("config", "CONFIG", "a YAML file, for example configs/demo.yaml")
_RUN = Argument("run", "RUN", "a finished run, for example runs/demo")
_PNG = Argument("out", "OUT.png", "the picture to write")
_NEW = (
    Argument("train", "TRAIN.csv", "the training table"),
    Argument("images", "IMAGES_DIR", "the folder of the training images"),
    Argument("--out", "FILE", "the config to write (default: configs/<the competition's folder>.yaml)"),
)
_CHECK = (
    _CONFIG,
    Argument("overrides", "key.path=value", "a value to replace in the config", type=str, nargs="*"),
    Argument("--run", "NAME", "the folder in runs/ for audit.json (default: the config's name)", type=str),
)
_VALIDATE = (
    _CONFIG,
    Argument("file", "FILE", "a submission, written by any tool"),
    Argument("--images", "DIR", "the folder of a hidden test set, whose files are the rows"),
)
_COMPARE = (
    Argument("first", "RUN", "a scored run, for example runs/demo"),
    Argument("second", "RUN", "another run on the same training table"),
)
_TRUTH = (
    Argument("run", "RUN", "a run with a submission, for example runs/demo"),
    Argument("truth", "CSV", "the answers, with the columns of the training table"),
)
_CURVES = (Argument("run", "RUN", "a run, finished or not, for example runs/demo"), _PNG)
_FIGURES = (_RUN, _PNG, Argument("--count", "N", "number of images (default 16)", type=int, default=16))
_ATTENTION = (
    _RUN,
    Argument("image", "IMAGE", "the file of the image, or one file per channel", nargs="+"),
    Argument("--labels", "A,B", "the labels to draw (default: the predicted ones)", type=str),
    Argument("--fold", "N", "the fold whose model is used (default 0)", type=int, default=0),
    Argument("--out", "FILE.png", "the picture to write (default: IMAGE-attention.png in this folder)"),
)

_REPORT = (
    Argument("runs", "RUN", "scored runs; or a folder of runs, for an index of all", nargs="+"),
    Argument("--out", "FILE", "the page to write (default: report.html in RUN; in this folder for several)"),
)

VERBS = {
    "new": Verb("write a first config for a competition", "data/mine/train.csv data/mine/train", _new, _NEW),
    "check": Verb("find mistakes and leaks in the data; train nothing", "configs/demo.yaml", _check, _CHECK),
    "validate": Verb(
        "check that a file is a valid submission", "configs/demo.yaml submission.csv", _validate, _VALIDATE
    ),
    "compare": Verb("compare the scores of two runs, with an interval", "runs/demo runs/second", _compare, _COMPARE),
    "truth": Verb(
        "score a submission once the true answers are known",
        "runs/demo data/digit_scenes/test_truth.csv",
        _truth,
        _TRUTH,
    ),
    "report": Verb("write a page about a run, or about several", "runs/demo", _report, _REPORT),
    "curves": Verb("draw the learning curves of a run", "runs/demo curves.png", _curves, _CURVES),
    "figures": Verb(
        "draw training images with their out-of-fold predictions", "runs/demo sheet.png", _figures, _FIGURES
    ),
    "attention": Verb(
        "draw where a model finds each label in an image",
        "runs/demo data/digit_scenes/test/TEST_0000.png",
        _attention,
        _ATTENTION,
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    raw = argparse.RawDescriptionHelpFormatter  # does not break the lines of the list and of an example
    lines = "\n".join(f"  {name:<11}{verb.summary}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(prog="python -m pipeline", epilog=f"verbs:\n{lines}", formatter_class=raw)
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, help="one of the verbs below; VERB --help explains it"
    )
    for name, verb in VERBS.items():
        example = f"example:\n  python -m pipeline {name} {verb.example}"
        added = verbs.add_parser(name, description=verb.summary, epilog=example, formatter_class=raw)
        for argument in verb.arguments:
            options = argument._asdict()
            added.add_argument(options.pop("name"), **options)
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
    end_process(main(sys.argv[1:]))


if __name__ == "__main__":
    console_script()
