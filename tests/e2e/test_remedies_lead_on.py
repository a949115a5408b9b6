"""Remedies are executed: what a message proposes is read from the message, applied, and the command leads on."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.model.backbone import build_backbone
from tests.e2e.commands import cv, make_plan, submission, verb

Spoil = Callable[[], object]
SECTIONS = "|".join(Config.model_fields)
VALUE = r"(\[[^\]]*\]|\{[^}]*\}|'[^']*'|[\w./+@-]*\w)"
SET = re.compile(rf"((?:{SECTIONS})(?:\.\w+)+)(?:=|: | to ){VALUE}")
OUT = re.compile(rf"(?:leave|take) (?:the option )?((?:(?:{SECTIONS})\.)?\w+(?:\.\w+)*) (?:out|away)")


class Case(NamedTuple):
    """A wrong config: its overrides, a part of the message, and what must be there.

    `reading` turns phrases of the remedy that hold no literal value into overrides; each must be in the message.
    """

    bad: tuple[str, ...]
    problem: str
    reading: Mapping[str, str] = MappingProxyType({})
    spoil: Spoil = lambda: None


def alternatives(remedy: str, reading: Mapping[str, str]) -> list[list[str]]:
    """The ways out that a remedy names, as overrides; `-key` leaves a key out."""
    for phrase, override in reading.items():
        remedy = remedy.replace(phrase, override)
    found = []
    for part in re.split(r"[,;] or |; | or (?!more|fewer)", remedy):
        keys = [f"{key}={value.strip(chr(39))}" for key, value in SET.findall(part)]
        keys += [f"-{key}" for key in OUT.findall(part)]
        found += [keys] if keys else []
    return found


def applied(bad: tuple[str, ...], changes: list[str]) -> list[str]:
    """The overrides with the changes."""
    changed = {change.lstrip("-").partition("=")[0] for change in changes}
    kept = [each for each in bad if each.partition("=")[0] not in changed]
    return [*kept, *(change for change in changes if not change.startswith("-"))]


def captions() -> None:
    lines = Path("data/train.csv").read_text().splitlines()
    body = [f'{line},"a "dog" on a mat' for line in lines[1:]]
    Path("data/train.csv").write_text("\n".join([f"{lines[0]},caption", *body]) + "\n")


def tags(cells: Callable[[int], str], sample: str | None = None) -> Spoil:
    def write() -> None:
        frame = pd.read_csv("data/train.csv", dtype=str)
        frame.assign(tags=[cells(row) for row in range(len(frame))]).to_csv("data/train.csv", index=False)
        if sample is not None:
            test = pd.read_csv("data/test.csv", dtype=str)
            pd.DataFrame({"id": test["id"], "tags": sample}).to_csv("data/sample_submission.csv", index=False)

    return write


def cell(value: str) -> Spoil:
    def write() -> None:
        frame = pd.read_csv("data/train.csv", dtype=str)
        frame.loc[3, "red"] = value
        frame.to_csv("data/train.csv", index=False)

    return write


def fewer_tests() -> None:
    pd.read_csv("data/sample_submission.csv", dtype=str)[1:].to_csv("data/sample_submission.csv", index=False)


def further_column() -> None:
    frame = pd.read_csv("data/sample_submission.csv", dtype=str).drop(columns="blue")
    frame.assign(remark="x").to_csv("data/sample_submission.csv", index=False)


def backbone_file(name: str = "test_resnet", stride: int = 16) -> Spoil:
    def write() -> None:
        network = build_backbone(name, pretrained=False, feature_stride=stride, size=(32, 32)).body
        Path("hub").mkdir()
        save_file(network.state_dict(), "hub/model.safetensors")
        torch.save(network.state_dict(), "hub/pytorch_model.bin")
        Path("hub/config.json").write_text(f'{{"architecture": "{name}", "mean": [0, 0, 0], "std": [1, 1, 1]}}')

    return write


DELIMITED = "competition.labels={format: delimited, column: tags}"
NAMES = tags(lambda row: "cat dog" if row % 2 else "owl", "cat")
LISTS = tags(lambda row: "['cat', 'dog']" if row % 2 else "['owl']", "['cat']")
BITS = tags(lambda row: "[1, 0]" if row % 2 else "[0, 1]", "[0, 0]")
# fmt: off
CONFIGS = {
    "model": [
        Case(("model.feature_stride=5",), "has no stage", {"model.feature_stride to one of these":
            "model.feature_stride=16"}),
        Case(("model.query_groups=99",), "model.query_groups", {"model.query_groups to fewer groups, or to":
            "model.query_groups to"}),
        Case(("model.head=gap", "model.query_init=x.npy"), "has no label queries", {}, lambda: np.save("x.npy",
            np.zeros((3, 16)))),
        Case(("model.input_projection=false", "model.hidden_dim=32"), "as wide as",
            {"model.hidden_dim to that width": "model.hidden_dim=192"}),
        Case(("model.backbone=local-dir:hub",), "unknown model.backbone", {}, backbone_file()),
        Case(("model.backbone=hf-hub:timm/test_resnet.r160_in1k",), "unknown model.backbone"),
        Case(("model.weights=hub/model.safetensors",), "no weights of this pipeline", {}, backbone_file()),
        Case(("model.weights=hub/pytorch_model.bin",), "not a checkpoint", {}, backbone_file()),
        Case(("model.backbone_weights=hub", "model.backbone=test_vit"), "another network", {}, backbone_file()),
        Case(("model.backbone_weights=hub/model.safetensors", "model.backbone=test_resnet",
            "model.feature_stride=16"), "does not fit backbone", {}, backbone_file("resnet18", 32)),
        Case(("model.weights=absent.safetensors",), "there is no file", {"correct model.weights":
            "leave model.weights out"}),
        Case(("model.pretrained=true",), "cannot be loaded", {"model.backbone_weights to its path":
            "model.backbone_weights=hub/model.safetensors"}, backbone_file()),
        Case(("model.backbone=test_vit", "model.feature_stride=16", "images.size=33"), "cannot read images",
            {"change images.size": "images.size=32"}),
    ],
    "training": [
        Case(("loss.gamma_neg={red: 1}",), "does not fit the labels", {"name every label in loss.gamma_neg":
            "loss.gamma_neg={red: 1, green: 1, blue: 1}", "set it to one number": "loss.gamma_neg=2"}),
        Case(("images.max_pixels=100",), "cannot be read", {"set images.max_pixels": "images.max_pixels=2000"}),
        Case(("train.precision=fp16",), "needs a GPU"),
        Case(("folds.count=99",), "99 folds", {"folds.count to one of these": "folds.count=3"}),
        Case(("images.cache=none", "images.cache_format=raw"), "has no format", {"set it to ":
            "images.cache_format="}),
        Case(("predict.tta=[identity,identity]",), "named twice", {"name each view once, for example ":
            "predict.tta="}),
    ],
    "metric": [
        Case(("competition.metric=map@k",), "needs k", {"write map@3": "competition.metric=map@3", "{name: map@k":
            "competition.metric={name: map@k"}),
        Case(("competition.metric={name: f1_macro, average: weighted}",), "sets average",
            {"leave the option average out": "competition.metric=f1_macro"}),
        Case(("competition.metric={name: map, beta: 2}",), "no option 'beta'", {"leave it out":
            "competition.metric=map"}),
    ],
    "tables": [
        Case(("competition.labels.columns=[rde]",), "label columns are not known"),
        Case(("competition.sample_submission=absent.csv",), "label columns are not known"),
        Case((), "quoting: none", {}, captions),
        Case((), "red = '0.7'", {"labels.soft: true": "competition.labels.soft=true"}, cell("0.7")),
        Case((), "red = ''", {"competition.labels.missing sets the value of blank cells":
            "competition.labels.missing=zeros"}, cell("")),
        Case((), "red = '-1'", {"competition.labels.uncertain sets the value of uncertain cells":
            "competition.labels.uncertain=ignore"}, cell("-1")),
        Case(("competition.images={template: 'train/{id:03d}.png'}",), "needs numbers",
            {"write {id} in competition.images.template": "competition.images.template='train/{id}.png'"}),
        Case((DELIMITED, "submission.format=delimited"), "are lists", {}, LISTS),
        Case(("competition.labels={format: delimited, column: tags, cells: list}", "submission.format=delimited"),
            "joined names", {}, NAMES),
        Case((DELIMITED, "submission.format=delimited"), "vectors",
            {"competition.labels.classes to the names of the labels": "competition.labels.classes=[a, b]"}, BITS),
        Case(("competition.labels={format: delimited, column: tags, cells: vector}",
            "submission={format: delimited, cells: vector}"), "not known", {}, BITS),
    ],
    "submission": [
        Case(("submission.format=delimited",), "one column beside", {}),
        Case(("submission.constants={other: 1}",), "no column 'other'", {"take it out of submission.constants":
            "submission.constants={}"}),
        Case(("competition.labels.columns=[red, green]", "submission.format=wide_binary"), "remark", {},
            further_column),
        Case(("competition.labels={format: delimited, column: tags, cells: list}", "submission.format=delimited"),
            "would be rejected", {}, LISTS),
        Case(("competition.images={template: 'train/{id}.png', test_template: 'test/{id}.png'}",),
            "do not hold the same ids", {}, fewer_tests),
        Case((DELIMITED, "competition.test=test.csv", "competition.sample_submission=null",
            "submission.format=delimited"), "submission.columns", {"submission.columns, for example ":
            "submission.columns="}, NAMES),
    ],
}
# fmt: on
CASES = [
    pytest.param(case, id=f"{group}-{number}") for group, cases in CONFIGS.items() for number, case in enumerate(cases)
]


def follow(config: Path, bad: tuple[str, ...], case: Case, told: tuple[str, ...] = ()) -> str:
    """Try each way out of the error of `bad`; another error may follow, whose ways out are followed too."""
    with pytest.raises(PipelineError) as caught:
        make_plan(config, *bad)
    error = caught.value
    assert error.problem not in told  # no two remedies name each other
    text = error.problem if "mistake in the config" in error.problem else error.remedy
    text += error.got or "" if "cannot be read" in error.problem else ""  # each image with its own remedy
    ways = alternatives(text, case.reading)
    assert ways, text
    for changes in ways:
        changed = tuple(applied(bad, changes))
        try:
            make_plan(config, *changed)
        except PipelineError:
            text += follow(config, changed, case, (*told, error.problem))
    return str(error) if told else f"{error}\n{text}"


@pytest.mark.parametrize("case", CASES)
def test_keys_of_a_remedy_lead_on(case: Case, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    case.spoil()
    texts = follow(tiny_config, case.bad, case)
    assert case.problem in texts
    assert [phrase for phrase in case.reading if phrase not in texts] == []


RUN = "runs/tiny"
COMMAND = re.compile(r"python (?:-m pipeline|(make_submission)\.py) ((?:[\w./]+ ?)+)")


class Command(NamedTuple):
    """A command that fails, the phrase of its remedy that is carried out, and the command that leads on.

    Without a phrase the remedy holds a whole command: it is executed, and then the first one again.
    """

    words: str
    problem: str
    phrase: str = ""
    then: str = ""
    spoil: Spoil = lambda: None
    act: Spoil = lambda: None


def remove(name: str) -> Spoil:
    return Path(RUN, name).unlink


def write(name: str, text: str = "x") -> Spoil:
    return lambda: Path(name).write_text(text)


def second() -> None:
    shutil.copytree(RUN, "runs/second")


def second_alone() -> None:
    second()
    Path(RUN, "run.json").unlink()


def blended() -> None:
    second()
    assert verb("blend", RUN, "runs/second", "--out", "runs/blend") == 0


def fewer_rows() -> None:
    pd.read_csv("data/train.csv", dtype=str)[1:].to_csv("data/train.csv", index=False)


MARK = '{"made_by": "q2l-pipeline"}'
PICTURE = "attention runs/tiny data/test/t.000.png --out x.png"
# fmt: off
COMMANDS = [
    Command("cv tiny.yaml --run a/b", "is not the name", "--run second", "cv tiny.yaml --run second", second),
    Command("cv tiny.yaml train.lr=0.5", "other training settings", "go back to the old values", "cv tiny.yaml"),
    Command("cv tiny.yaml", "no run.json", f"write {MARK} into that file", "cv tiny.yaml", remove("run.json"),
        write(f"{RUN}/run.json", MARK)),
    Command("cv tiny.yaml", "no run.json", "--run NAME", "cv tiny.yaml --run second", second_alone),
    Command("cv tiny.yaml", "does not hold", "delete it and run the same command again", "cv tiny.yaml",
        write(f"{RUN}/data.json", "{}"), remove("data.json")),
    Command("submit runs/tiny", "not finished", "the same run_cv.py command goes on", "cv tiny.yaml", remove(
        "thresholds.json")),
    Command("submit runs/tiny", "not finished", "with --folds finished", "cv tiny.yaml --folds finished", remove(
        "thresholds.json")),
    Command("submit runs/tiny", "not readable as weights", "train again with --fresh",
        "cv tiny.yaml --fresh train.epochs=1", write(f"{RUN}/fold1/weights.safetensors")),
    Command("cv tiny.yaml", "is damaged", "start over with --fresh", "cv tiny.yaml --fresh train.epochs=1",
        write(f"{RUN}/folds.csv", "id,fold\n")),
    Command("cv tiny.yaml", "other rows", "--run NAME", "cv tiny.yaml --run new --folds finished", fewer_rows),
    Command("cv tiny.yaml --folds 7", "no fold 7", "leave --folds out", "cv tiny.yaml"),
    Command("cv tiny.yaml --folds x", "not a list", "--folds finished", "cv tiny.yaml --folds finished"),
    Command("cv tiny.yaml train.epochs", "not of the form", "write it like train.epochs=10",
        "cv tiny.yaml train.epochs=2"),
    Command("cv tiny.yaml --autopilot 1h --search", "chooses trainings", "leave --search, --debug and --folds away",
        "cv tiny.yaml --autopilot 0"),
    Command("cv tiny.yaml --run blend", "is a blend", "--run NAME", "cv tiny.yaml --run second", blended),
    Command("submit runs/tiny --out runs/tiny/x.csv", "the folder of a run", "leave --out away", "submit runs/tiny"),
    Command("submit runs/tiny --out runs/tiny/x.csv", "the folder of a run", "--out a place elsewhere",
        "submit runs/tiny --out x.csv"),
    Command("submit runs/tiny --out o.csv", "there already", "move the old one away",
        "submit runs/tiny --out o.csv", write("o.csv"), Path("o.csv").unlink),
    Command("submit runs/tiny --out data", "cannot be written", "a writable --out FILE",
        "submit runs/tiny --out x.csv"),
    Command("submit runs/tiny --folds 7", "is not finished", "name other folds", "submit runs/tiny --folds 0"),
    Command("submit runs/tiny --tta hflop", "did you mean 'hflip'", "predict.tta or --tta",
        "submit runs/tiny --tta hflip"),
    Command("submit runs/tiny --images nowhere", "no images", "--images DIR", "submit runs/tiny --images data/test"),
    Command("submit data", "no config.yaml", "a folder that run_cv.py made", "submit runs/tiny"),
    Command("submit runs/blend --tta hflip", "is a blend", "leave --tta away", "submit runs/blend", blended),
    Command("submit runs/blend --folds 0", "is a blend", "leave --folds away", "submit runs/blend", blended),
    Command("validate tiny.yaml absent.csv", "cannot be read", "give the path of a CSV",
        "validate tiny.yaml data/sample_submission.csv"),
    Command("new data/train.csv data/train --out tiny.yaml", "there already", "--out FILE",
        "new data/train.csv data/train --out other.yaml"),
    Command("truth runs/tiny data/sample_submission.csv", "holds no submission", spoil=remove("submission.json")),
    Command("ledger add runs/tiny", "is no file", spoil=remove("submission.csv")),
    Command("ledger pick 2", "holds no submission", "python -m pipeline ledger add runs/demo",
        "ledger add runs/tiny"),
    Command("ledger add", "without a run", "ledger add runs/demo --public 0.81",
        "ledger add runs/tiny --public 0.81"),
    Command("ledger add runs/tiny --public 0.8 --public-share 30", "impossible", "--public-share 0.3",
        "ledger add runs/tiny --public 0.8 --public-share 0.3"),
    Command("curves data x.png", "no finished epoch", "a run that run_cv.py has begun", "curves runs/tiny x.png"),
    Command("curves runs/blend x.png", "is a blend", "give one of its members", "curves runs/second x.png", blended),
    Command("report data", "holds no run", "give runs/ or", "report runs"),
    Command(f"{PICTURE} --fold 9", "no fold 9", "correct --fold", f"{PICTURE} --fold 0"),
    Command(f"{PICTURE} --labels reed", "did you mean 'red'", "correct --labels", f"{PICTURE} --labels red"),
    Command("blend runs/tiny --out runs/blend", "at least two members", "give more runs",
        "blend runs/tiny runs/second --out runs/blend", second),
    Command("blend runs/tiny runs/second --out runs/tiny", "is a run already", "--out runs/blend",
        "blend runs/tiny runs/second --out runs/blend", second),
]
# fmt: on


def execute(words: str) -> int:
    """The exit code of a command: `cv` and `submit` are the two scripts, others verbs."""
    first, *rest = words.split()
    with pytest.MonkeyPatch.context() as patch:
        return (
            cv(patch, *rest) if first == "cv" else submission(patch, *rest) if first == "submit" else verb(first, *rest)
        )


@pytest.fixture(scope="module")
def submitted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a submission."""
    place = tmp_path_factory.mktemp("submitted")
    shutil.copytree(finished.parent.parent, place, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert execute(f"submit {RUN}") == 0
    return place


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.words)
def test_commands_of_a_remedy_lead_on(
    case: Command, submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(submitted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    case.spoil()
    capsys.readouterr()
    assert execute(case.words) == 2
    message = capsys.readouterr().err
    assert case.problem in message
    remedy = message.partition("remedy:")[2]
    if case.phrase:
        assert case.phrase in remedy
        case.act()
        assert execute(case.then) == 0
    else:
        found = COMMAND.search(remedy)
        assert found is not None
        assert execute(f"{'submit ' if found[1] else ''}{found[2]}") == 0
        assert execute(case.words) == 0
