"""Bundles: script and notebook write the CSV of make_submission.py without network and training libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.export import bundle as module
from pipeline.export.targets import ENGINE_PACKAGES, TARGETS, TRAINING_ONLY
from tests.e2e.commands import cv, submission, verb

BLOCKED = "albumentations accelerate iterstrat matplotlib optuna"


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in the working directory, whose images that cannot be read get a fallback."""
    shutil.copytree(finished.parents[1], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    assert cv(monkeypatch, "tiny.yaml", "predict.broken=fallback") == 0
    return tmp_path / "place"


@pytest.fixture
def without_training(tmp_path: Path) -> dict[str, str]:
    """An environment in which the libraries of training, and this clone, cannot be imported."""
    blocked = f"import sys\nfor name in {BLOCKED.split()}:\n    sys.modules[name] = None\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(blocked)
    return {**os.environ, "PYTHONPATH": str(tmp_path / "site")}


def _run(*words: str | Path, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_bundle_predicts_what_make_submission_predicts_without_the_libraries_of_training(
    place: Path, tmp_path: Path, without_training: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cv(monkeypatch, "tiny.yaml", "train.epochs=1", "--run", "second") == 0
    runs = [Path("runs/tiny"), Path("runs/second")]
    assert submission(monkeypatch, *runs, "--out", "both.csv") == 0
    assert verb("bundle", *runs, "--out", "kit") == 0
    assert verb("bundle", *runs, "--out", "kit") == 2  # it is there already
    assert "albumentations" not in Path("kit/requirements.txt").read_text()
    target = tmp_path / "input/competition"
    target.mkdir(parents=True)
    for name in ("test", "test.csv", "sample_submission.csv"):
        shutil.move(f"data/{name}", target / name)
    shutil.rmtree("data")  # no training table on the target
    words: list[str | Path] = [sys.executable, place / "kit/script.py", tmp_path / "input", "out.csv"]
    done = _run(*words, folder=tmp_path, environment=without_training)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == Path("both.csv").read_bytes()
    weights = next(Path("kit").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = _run(*words, folder=tmp_path, environment=without_training)
    assert done.returncode == 2
    assert f"{weights.name} is missing or damaged" in done.stderr


def test_the_zip_has_its_parts_at_the_root_and_lists_what_the_target_lacks(place: Path) -> None:
    assert verb("bundle", "runs/tiny", "--for", "dacon", "--out", "kit") == 0
    with zipfile.ZipFile("kit/submit.zip") as archive:
        names = archive.namelist()
        requirements = archive.read("requirements.txt").decode()
        manifest = json.loads(archive.read("model/manifest.json"))
    assert {name.split("/")[0] for name in names} == {"model", "script.py", "requirements.txt"}
    assert not {line.split("==")[0] for line in requirements.splitlines()} & {"torch", *TRAINING_ONLY}
    assert "model/runs/0-tiny/fold1/weights.safetensors" in manifest


def test_kaggle_lacks_two_decoders_and_the_engines() -> None:
    lacking = module._lacking(TARGETS["kaggle"], ENGINE_PACKAGES["openvino"])
    names = {each.split("==")[0] for each in lacking}
    assert names == {"imagecodecs", "openvino", "openvino-telemetry", "simplejpeg"}


def test_a_blend_has_no_networks_to_pack(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("runs/tiny", "runs/second")
    for run in ("runs/tiny", "runs/second"):
        assert submission(monkeypatch, run) == 0
    assert verb("blend", "runs/tiny", "runs/second", "--out", "runs/blend") == 0
    for words in (("bundle", "runs/blend", "runs/tiny", "--out", "kit"), ("export", "runs/blend")):
        assert verb(*words) == 2
        assert "runs/blend is a blend: it has no models" in capsys.readouterr().err
    assert not Path("kit").exists()


def test_an_engine_that_is_not_exported_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_build_wheel", lambda to: None)
    assert cv(monkeypatch, "tiny.yaml", "predict.engine=openvino") == 0
    assert verb("bundle", "runs/tiny", "--out", "kit") == 2
    assert "export runs/tiny --format openvino" in " ".join(capsys.readouterr().err.split())
    assert not Path("kit").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["kaggle", "dacon"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_without_a_network_a_larger_hidden_test_set_is_predicted(
    target: str, engine: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment that sees the libraries of this one except those that only training needs."""
    assert cv(monkeypatch, "tiny.yaml", "predict.broken=fallback", f"predict.engine={engine}") == 0
    if engine != "torch":
        assert verb("export", "runs/tiny", "--format", engine) == 0
    assert verb("bundle", "runs/tiny", "--for", target, "--out", "kit") == 0
    _enlarge(Path("data"))
    assert submission(monkeypatch, "runs/tiny", "--out", "expected.csv") == 0
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    own = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    own.joinpath("target.pth").write_text(f"{site}\n")
    blocked = f"import sys\nfor name in {BLOCKED.split()}:\n    sys.modules[name] = None\n"
    own.joinpath("blocked.py").write_text(blocked)
    own.joinpath("blocked.pth").write_text("import blocked\n")
    python, environment = tmp_path / "venv/bin/python", {**os.environ, "PYTHONPATH": ""}
    work = tmp_path / "work"
    if target == "dacon":
        work.mkdir()
        zipfile.ZipFile("kit/submit.zip").extractall(work)
        shutil.copytree("data", work / "data")
        command: list[str | Path] = [python, "script.py"]
        out = work / "output/submission.csv"
    else:
        for source, name in (("kit", "kit"), ("data", "competition")):
            shutil.copytree(source, work / "input" / name)
        text = (work / "input/kit/notebook.ipynb").read_text().replace("/kaggle/input", str(work / "input"))
        (work / "notebook.ipynb").write_text(text)
        execute = "import nbclient, nbformat; nbclient.NotebookClient(nbformat.read('notebook.ipynb', 4)).execute()"
        command = [python, "-c", execute]
        out = work / "submission.csv"
    done = _run(
        "unshare",
        "-rn",
        "sh",
        "-c",
        'ip link set lo up 2>/dev/null; exec "$@"',
        "sh",
        *command,
        folder=work,
        environment=environment,
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == Path("expected.csv").read_bytes()
    assert len(pd.read_csv(out)) == 120


def _enlarge(data: Path) -> None:
    """Twenty times as many test images in another order, one of them broken."""
    test, sample = (pd.read_csv(data / name, dtype=str) for name in ("test.csv", "sample_submission.csv"))
    order = np.random.default_rng(0).permutation(20 * len(test))
    rows = []
    for number in order:
        source = test.iloc[number % len(test)]
        id_ = f"h.{number:04d}"
        shutil.copy(data / source["img_path"], data / f"test/{id_}.png")
        rows.append({"id": id_, "img_path": f"./test/{id_}.png"})
    (data / "test/h.0007.png").write_bytes(b"no image")
    frame = pd.DataFrame(rows)
    frame.to_csv(data / "test.csv", index=False)
    blank = pd.DataFrame("0", index=range(len(frame)), columns=sample.columns)
    blank["id"] = frame["id"].to_numpy()
    blank.to_csv(data / "sample_submission.csv", index=False)
