"""Messages name only config keys, values, options and commands that exist."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

import make_submission
import run_cv
from pipeline.__main__ import VERBS, make_parser
from pipeline.config import Config
from pipeline.config.section import Section
from tests.conftest import PROJECT

SOURCES = [*sorted((PROJECT / "pipeline").rglob("*.py")), PROJECT / "run_cv.py", PROJECT / "make_submission.py"]
# A key, and the value that a message proposes for it: `key=value`, or `key: value` before the end of a clause.
KEY = re.compile(
    rf"(?<![\w/.'-])((?:{'|'.join(Config.model_fields)})(?:\.[a-z_]+)+)(?![\w(/-]|\.\w)"
    r"(?:=([\w.+-]*[\w])|: ([\w.]*\w)(?=$|[,;)]| or ))?"
)
FILES = {"csv", "json", "yaml", "npy", "png", "parquet", "safetensors", "pth", "onnx", "xml", "bin"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_OTHER_PROGRAMS = {
    *("--constraint", "--dest", "--disable-pip-version-check", "--editable", "--find-links", "--no-build-isolation"),
    *("--no-deps", "--no-index", "--only-binary", "--python-version", "--quiet", "--wheel-dir", "--head", "--shm-size"),
}


def _texts() -> Iterator[tuple[str, str]]:
    """(place, text) of each string of the code that is no docstring; `{}` is what it inserts."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            place = f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield (
                    place,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                yield place, node.value


TEXTS = list(_texts())


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        for part in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            found |= _options(part)
    return found


def _fields(kind: Any, name: str) -> Iterator[Any]:
    """The fields `name` of a section, or of the sections in a union or a list of values."""
    if isinstance(kind, type) and issubclass(kind, Section):
        if name in kind.model_fields:
            yield kind.model_fields[name]
        return
    if kind in (dict, Any):
        yield FREE
    for part in get_args(kind):
        yield from _fields(part, name)


FREE: Any = object()


def _found(key: str) -> list[Any]:
    """The fields that a dotted key may mean; none if there is no such key."""
    kinds: list[Any] = [Config]
    fields: list[Any] = []
    for name in key.split("."):
        fields = [field for kind in kinds for field in _fields(kind, name)]
        kinds = [field.annotation for field in fields if field is not FREE]
    return fields


def _accepts(field: Any, value: object) -> bool:
    if field is FREE:
        return True
    try:
        TypeAdapter(Annotated[(field.annotation, None, *field.metadata)]).validate_python(value)
    except ValidationError:
        return False
    return True


KEYS = [(place, *match.groups()) for place, text in TEXTS for match in KEY.finditer(text)]
KEYS = [found for found in KEYS if found[1].rsplit(".", 1)[1] not in FILES]


def test_keys_exist() -> None:
    assert len(KEYS) > 200
    assert [(place, key) for place, key, *_ in KEYS if not _found(key)] == []


def test_proposed_values_are_accepted() -> None:
    proposed = [(place, key, yaml.safe_load(value or other)) for place, key, value, other in KEYS if value or other]
    assert len(proposed) > 30
    wrong = [each for each in proposed if not any(_accepts(field, each[2]) for field in _found(each[1]))]
    assert wrong == []


def test_options_and_verbs_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known = _options(make_parser()) | OF_OTHER_PROGRAMS
    for parse in (run_cv.parse_arguments, lambda _: make_submission.parse_arguments()):
        monkeypatch.setattr("sys.argv", ["", "--help"])
        with pytest.raises(SystemExit):
            parse(["--help"])
    known |= set(OPTION.findall(capsys.readouterr().out))
    options = [(place, option) for place, text in TEXTS for option in OPTION.findall(text)]
    assert len(options) > 100
    assert [(place, option) for place, option in options if option not in known] == []
    verbs = [(place, verb) for place, text in TEXTS for verb in re.findall(r"python -m pipeline (\w+)", text)]
    assert len(verbs) > 3
    assert [(place, verb) for place, verb in verbs if verb not in VERBS] == []


def test_files_exist() -> None:
    named = {name for _, text in TEXTS for name in re.findall(r"(?:configs|docs)/[\w/]+\.(?:yaml|md)", text)}
    assert named
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []
