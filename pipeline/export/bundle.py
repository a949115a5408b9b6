"""Packs finished runs for a machine without internet: networks, thresholds, code, wheels, a script to start."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from packaging.requirements import Requirement

import pipeline
from pipeline.errors import PipelineError, RunError
from pipeline.export.bundle_run import MEAN
from pipeline.export.targets import ENGINE_PACKAGES, TARGETS, TRAINING_ONLY, Target
from pipeline.files import write_json, write_parquet
from pipeline.model.exported import digest_of
from pipeline.run.folder import RunFolder
from pipeline.run.records import Platt
from pipeline.run.submission.test_thresholds import choose_decision_rule
from pipeline.run.trained_run import TrainedRun, require_models, require_same_labels
from pipeline.thresholds.row_rules import row_rules

_ROOT = Path(pipeline.__file__).parents[1]
_SOURCES = ("pipeline", "pyproject.toml", "README.md", "LICENSE", "run_cv.py", "make_submission.py")
_MINUTES = 30  # for pip

_SCRIPT = '''"""Predict the test images: python script.py [DATA [OUT.csv]]."""

import hashlib
import json
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
for name, (size, digest) in json.loads((HOME / "model/manifest.json").read_text()).items():
    file = HOME / name
    whole = file.is_file() and file.stat().st_size == size
    if not whole or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
        print(f"error: {file} is missing or damaged\\n  remedy:   copy the whole bundle again", file=sys.stderr)
        sys.exit(2)
sys.path.insert(0, str(next((HOME / "model").glob("q2l_pipeline-*.whl"))))
from pipeline.commands import end_process, run_command
from pipeline.console import make_console
from pipeline.export.bundle_run import predict_bundle
from pipeline.report.tables import print_submitted


def main():
    data, out = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]
    print_submitted(make_console(), predict_bundle(HOME / "model", Path(data), Path(out)))


if __name__ == "__main__":
    end_process(lambda: run_command(main, "python script.py"))
'''
_CELLS = (
    """import subprocess
import sys
from pathlib import Path

INPUT = Path("/kaggle/input")
found = (path for depth in range(5) for path in sorted(INPUT.glob("*/" * depth + "script.py")))
script = next(path for path in found if (path.parent / "model/manifest.json").exists())
wheels = sorted(map(str, script.parent.glob("wheels/*.whl")))
if wheels:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*install, *wheels], check=True)""",
    '''command = [sys.executable, "-u", str(script), str(INPUT), "submission.csv"]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
    for line in process.stdout:
        print(line, end="")
assert process.returncode == 0, "no submission was written: the message above names the reason"''',
)


def bundle(runs: Sequence[TrainedRun], *, target: str, out: Path, wheels: bool) -> list[str]:
    """Write the folder `out`, for dacon with `submit.zip` in it; returns the packages that the target lacks.

    Args:
        runs: finished, of the same labels; a bundle averages them.
        target: a key of `TARGETS`.
        out: a folder that does not exist or is empty.
        wheels: download the wheels of those packages into the bundle.

    Raises:
        RunError: a run is a blend, `out` holds files, a network is not exported, or the wheel cannot be built.
    """
    require_same_labels(runs)
    require_models(runs)
    if not (_ROOT / "pyproject.toml").exists():
        raise RunError(f"{_ROOT} is not a clone of this project", remedy="run the bundle command in a clone")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RunError(f"{out} is there already", remedy="give --out a new folder, or delete this one")
    place = TARGETS[target]
    engines = {run.config.predict.engine for run in runs}
    lacking = _lacking(place, [name for engine in engines for name in ENGINE_PACKAGES[engine]])
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "bundle"
        model = home / "model"
        for number, run in enumerate(runs):
            _copy_run(run, model / "runs" / f"{number}-{run.folder.path.name}")
        if len(runs) > 1:
            _save_mean(runs, RunFolder(model / MEAN))
        _build_wheel(model)
        if wheels and lacking:
            _download(lacking, place, home / "wheels")
        lines = [f"./wheels/{path.name}" for path in sorted(home.glob("wheels/*.whl"))] or lacking
        (home / "requirements.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        head, tail = _SCRIPT.split("for name", 1)
        script = f"{head}DEFAULTS = ({place.data!r}, {place.out!r})\nfor name{tail}"
        (home / "script.py").write_text(script, encoding="utf-8")
        if target == "kaggle":
            (home / "notebook.ipynb").write_text(json.dumps(_notebook()), encoding="utf-8")
        files = sorted(path for path in home.glob("[mw]*/**/*") if path.is_file())
        table = {str(path.relative_to(home)): [path.stat().st_size, digest_of(path)] for path in files}
        write_json(model / "manifest.json", table)
        if target == "dacon":
            home = _zipped(home)
        shutil.copytree(home, out, dirs_exist_ok=True)
    return lacking


def _copy_run(run: TrainedRun, to: Path) -> None:
    """Copy the files that predict, with the networks of `predict.engine`."""
    folder = run.folder
    files = [folder.mark, folder.config, folder.folds, folder.oof, folder.thresholds]
    files += [path for path in (folder.scores,) if path.exists()]
    files += [folder.fold(fold).done for fold in run.folds]
    for model in run.models:
        network = model.network(run.config.predict.engine)
        files += [network] if network.suffix != ".xml" else [network, network.with_suffix(".bin")]
    for path in files:
        if not path.exists():
            kind = "openvino" if path.suffix in (".xml", ".bin") else "onnx"
            raise RunError(
                f"{path} is missing: the network is not exported",
                remedy=f"python -m pipeline export {folder.path} --format {kind}",
            )
        copy = to / path.relative_to(folder.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _save_mean(runs: Sequence[TrainedRun], folder: RunFolder) -> None:
    """Save the rule of several runs: the target may lack the training table on which it is fitted."""
    first = runs[0]
    fitted = choose_decision_rule(runs, row_rules(first.config.submission, first.config.competition, first.labels))
    rule, labels = fitted.rule, first.labels
    assert fitted.mean is not None
    platt = None
    if rule.calibration is not None:
        pairs = zip(rule.calibration.slopes.tolist(), rule.calibration.intercepts.tolist(), strict=True)
        platt = {label: Platt(*pair) for label, pair in zip(labels, pairs, strict=True)}
    dataclasses.replace(
        first.thresholds,
        chosen=rule.policy,
        platt=platt,
        in_sample=fitted.in_sample,
        cross_fitted=fitted.cross_fitted,
        notes=fitted.score_notes,
        values=dict(zip(labels, rule.thresholds.tolist(), strict=True)),
        rates=dict(fitted.rates),
    ).save(folder.thresholds)
    table = pd.DataFrame(rule.out_of_fold, columns=list(labels))
    table.insert(0, "id", list(fitted.mean.rows.ids))
    write_parquet(folder.oof, table)


def _build_wheel(to: Path) -> None:
    """Build the wheel of this project from a copy of its sources: setuptools would keep files of older builds."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _SOURCES:
            path, copy = _ROOT / name, Path(folder) / name
            if path.is_dir():
                shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(path, copy)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(to), folder)


def _lacking(target: Target, extra: Iterable[str]) -> list[str]:
    """`name==version` of each package that prediction needs and the target lacks, as they are installed here."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name in found or name in target.packages or name in TRAINING_ONLY:
            return
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise RunError(f"the package {name} is not installed here", remedy=f"pip install {name}") from None
        for needed in _names(importlib.metadata.requires(name) or ()):
            add(needed)

    # Not from the installed metadata: those of an older clone may still be there.
    ours = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for name in (*_names(ours), *extra):
        add(name)
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def _names(requirements: Iterable[str]) -> list[str]:
    """The packages that are required here, without extras, in their normal spelling."""
    each_needed = map(Requirement, requirements)
    needed = (each for each in each_needed if each.marker is None or each.marker.evaluate({"extra": ""}))
    return [re.sub("[-_.]+", "-", each.name).lower() for each in needed]


def _download(packages: Sequence[str], target: Target, to: Path) -> None:
    python = ["--python-version", target.python] if target.python is not None else []
    _pip("download", "--no-deps", "--only-binary=:all:", *python, "--dest", str(to), *packages)


def _pip(*words: str) -> None:
    """Run pip. Raises PipelineError with its last line where it fails or needs half an hour."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES * 60, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise PipelineError(f"pip {words[0]} takes more than {_MINUTES} minutes", remedy="check the network") from None
    if done.returncode:
        raise PipelineError(
            f"pip {words[0]} fails",
            got=(done.stderr.strip().splitlines() or ["nothing on stderr"])[-1],
            remedy="pip install 'setuptools>=77' pip, and check the network; without --wheels no download is needed",
        )


def _notebook() -> dict[str, object]:
    cells: list[dict[str, object]] = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
        for source in _CELLS
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}


def _zipped(home: Path) -> Path:
    """A folder with `submit.zip`, which holds the files of `home` at its root."""
    folder = home.with_name("zipped")
    folder.mkdir()
    with zipfile.ZipFile(folder / "submit.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(home.rglob("*")):
            archive.write(path, path.relative_to(home))
    return folder
