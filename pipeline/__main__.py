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
from pipeline.errors import ConfigError


class Argument(NamedTuple):
    """One argument of a verb; the last fields are those of argparse. A name that begins with `--` is optional.

    One of type bool is a flag.
    """

    name: str
    metavar: str
    help: str
    type: Callable[[str], Any] = Path
    default: Any = None
    nargs: str | None = None
    action: str = "store"
    choices: tuple[str, ...] | None = None
    dest: str | None = None


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


def _table(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.competition.guess.class_tables import class_table
        from pipeline.console import make_console
        from pipeline.files import require_ours, write_csv
        from pipeline.report.live import LiveProgress

    console = make_console()
    require_ours(given.out, lambda _: False)
    table = class_table(given.folder, given.out, LiveProgress(console))
    write_csv(given.out, table)
    console.print(f"{given.out}: {len(table)} ids, {table.shape[1] - 1} classes", markup=False)


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


def _blend(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.blend import print_blend
        from pipeline.report.live import LiveProgress
        from pipeline.run.blend import blend

    console = make_console()
    with LiveProgress(console) as progress:
        blended = blend(given.runs, given.foreign, config=given.config, out=given.out, listen=progress)
    print_blend(console, given.out, *blended)


def _ledger(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.report.ledger import print_ledger, print_picks
        from pipeline.run.ledger import add

    if given.action == "pick":
        print_picks(make_console(), given.target or "2")
        return
    if given.action == "add" and given.target is None:
        raise ConfigError("ledger add without a run or a file", remedy="write: ledger add runs/demo --public 0.81")
    if given.action == "add":
        add(Path(given.target), public=given.public, public_share=given.public_share, note=given.note)
    elif given.action != "show":
        raise ConfigError(f"ledger {given.action}", expected="add, show or pick", remedy="correct the command")
    print_ledger(make_console())


def _export(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.export.export import export_run
        from pipeline.run.folder import RunFolder
        from pipeline.run.trained_run import open_run

    console, run = make_console(), open_run(RunFolder.at(given.run))
    with run.folder.in_use():
        export_run(
            run,
            kind=given.format,
            half=given.half,
            average=given.average,
            on_file=lambda path, difference: console.print(
                f"{path}: probabilities differ by at most {difference:.1g} from torch's", markup=False, soft_wrap=True
            ),
        )


def _bundle(given: argparse.Namespace) -> None:
    with interrupts.deferred():
        from pipeline.console import make_console
        from pipeline.export.bundle import bundle
        from pipeline.run.folder import RunFolder
        from pipeline.run.trained_run import open_run

    runs = [open_run(RunFolder.at(path)) for path in given.runs]
    lacking = bundle(runs, target=given.target, out=given.out, wheels=given.wheels)
    console = make_console()
    console.print(f"{given.out}: the bundle is written", markup=False, soft_wrap=True)
    if lacking:
        where = "in its folder wheels" if given.wheels else "not in the bundle: see requirements.txt, or give --wheels"
        console.print(f"packages that {given.target} lacks ({where}): {', '.join(lacking)}", markup=False)


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
_TABLE = (
    Argument("folder", "FOLDER", "a folder with a folder of images, or a file of ids, for each class"),
    Argument("--out", "FILE.csv", "the table to write (default: labels.csv)", default=Path("labels.csv")),
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
_BLEND = (
    Argument("runs", "RUN", "finished runs, each with a submission of its own", nargs="*"),
    Argument("--foreign", "NAME=OOF,TEST", "predictions by another tool, as CSV or parquet", str, [], action="append"),
    Argument("--config", "CONFIG", "the competition, needed where no run is given (default: that of the first run)"),
    Argument("--out", "FOLDER", "the folder of the blend (default: runs/blend)", default=Path("runs/blend")),
)
_LEDGER = (
    Argument("action", "ACTION", "add RUN, add FILE, show, or pick NUMBER", type=str),
    Argument("target", "TARGET", "a run, the file of a submission, or the number of picks (default 2)", str, None, "?"),
    Argument("--public", "SCORE", "the public score of the submission", float),
    Argument("--public-share", "SHARE", "the share of the test rows that it is computed on, such as 0.3", float),
    Argument("--note", "TEXT", "any text", str),
)
_EXPORT = (
    _RUN,
    Argument("--format", "FORMAT", "onnx (default) or openvino", str, "onnx", choices=("onnx", "openvino")),
    Argument("--half", "", "store the weights in half precision: half the size, a difference of at most 0.01", bool),
    Argument("--average", "", "one file with the mean of all models, for other programs", bool),
)
_TARGETS = ("kaggle", "dacon", "folder")
_BUNDLE = (
    Argument("runs", "RUN", "finished runs; several are averaged", nargs="+"),
    Argument(
        "--for", "TARGET", "kaggle, dacon or folder (any machine)", str, "folder", choices=_TARGETS, dest="target"
    ),
    Argument("--out", "DIR", "a new folder (default: bundle)", default=Path("bundle")),
    Argument("--wheels", "", "download the packages that the target lacks", bool),
)

_REPORT = (
    Argument("runs", "RUN", "scored runs; or a folder of runs, for an index of all", nargs="+"),
    Argument("--out", "FILE", "the page to write (default: report.html in RUN; in this folder for several)"),
)

VERBS = {
    "new": Verb("write a first config for a competition", "data/mine/train.csv data/mine/train", _new, _NEW),
    "table": Verb("write one table from a folder or file per class", "data/mine/train --out train.csv", _table, _TABLE),
    "check": Verb("find mistakes and leaks in the data; train nothing", "configs/demo.yaml", _check, _CHECK),
    "validate": Verb(
        "check that a file is a valid submission", "configs/demo.yaml submission.csv", _validate, _VALIDATE
    ),
    "compare": Verb("compare the scores of two runs, with an interval", "runs/demo runs/second", _compare, _COMPARE),
    "blend": Verb("average runs by weights found out of fold", "runs/demo runs/second", _blend, _BLEND),
    "ledger": Verb(
        "note public scores, and pick the final submissions", "add runs/demo --public 0.81", _ledger, _LEDGER
    ),
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
    "export": Verb(
        "write the networks of a run as ONNX or OpenVINO files", "runs/demo --format openvino", _export, _EXPORT
    ),
    "bundle": Verb(
        "pack runs for a code competition", "runs/demo --for kaggle --out bundle --wheels", _bundle, _BUNDLE
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
            options = {key: value for key, value in argument._asdict().items() if (key, value) != ("dest", None)}
            if argument.type is bool:
                options = {"name": argument.name, "help": argument.help, "action": "store_true"}
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
    end_process(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    console_script()
