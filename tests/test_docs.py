"""The documentation names only files, options, commands and config keys that exist."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import VERBS
from pipeline.config import load_config
from tests.conftest import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
SCRIPTS = {"run_cv.py": "run_cv.py", "make_submission.py": "make_submission.py"}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(run_cv\.py|make_submission\.py|python -m pipeline) +(.*)")
OPTION = re.compile(r"--[a-z][a-z-]*")


def _fenced(language: str) -> list[str]:
    blocks = [block for page in PAGES for block in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [text for kind, text in blocks if kind == language]


def _code() -> list[str]:
    """Lines of code blocks without a language, and everything between single backticks."""
    prose = [FENCE.sub("", page.read_text(encoding="utf-8")) for page in PAGES]
    spans = [" ".join(span.split()) for text in prose for span in re.findall(r"`([^`]+)`", text)]
    return [line for block in _fenced("") for line in block.replace("\\\n", " ").splitlines()] + spans


def _commands() -> list[tuple[str, list[str]]]:
    """Each command of the documentation: `run_cv.py`, `make_submission.py` or a verb, and its words."""
    found = []
    for line in _code():
        if match := COMMAND.search(line):
            words = shlex.split(match[2], comments=True)
            found.append((match[1], words) if match[1] in SCRIPTS else (words[0], words[1:]))
    return found


def _options(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> set[str]:
    script, *verb = [SCRIPTS[command]] if command in SCRIPTS else ["pipeline/__main__.py", command]
    monkeypatch.setattr(sys, "argv", [script, *verb, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    return set(OPTION.findall(capsys.readouterr().out))


def test_links_lead_to_files() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if "://" not in link]
    assert len(local) >= 30
    assert [link for page, link in local if not (page.parent / link).exists()] == []


def test_anchors_lead_to_headings() -> None:
    anchors = [
        ((page.parent / file).resolve() if file else page, anchor)
        for page in PAGES
        for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert len(anchors) >= 5
    for page, anchor in anchors:
        headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-").replace(",", "") for heading in headings}


def test_named_configs_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"configs/[\w/]+\.yaml", page.read_text(encoding="utf-8"))}
    assert len(named) >= 15
    assert [name for name in sorted(named - {"configs/mine.yaml"}) if not (PROJECT / name).exists()] == []


def test_commands_and_options_are_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands = _commands()
    assert {command for command, _ in commands} >= {"run_cv.py", "make_submission.py", "check"}
    assert {command for command, _ in commands} <= {*SCRIPTS, *VERBS}
    known = {command: _options(command, monkeypatch, capsys) for command in {command for command, _ in commands}}
    for command, words in commands:
        used = {word for word in words if OPTION.fullmatch(word)}
        assert used <= known[command], (command, words)
    alone = {option for span in _code() for option in OPTION.findall(span) if span.startswith("--")}
    assert alone <= set().union(*known.values())


def test_overrides_are_config_keys() -> None:
    overrides = [word for command, words in _commands() if command in {"run_cv.py", "check"} for word in words]
    overrides = [word for word in overrides if re.match(r"[a-z_]+\.[\w.]+=", word)]
    assert len(overrides) >= 5
    for word in overrides:
        load_config(PROJECT / "configs/base.yaml", [word])


def test_config_snippets_load(tmp_path: Path) -> None:
    snippets = _fenced("yaml")
    assert len(snippets) >= 4
    for number, snippet in enumerate(snippets):
        path = tmp_path / f"{number}.yaml"
        path.write_text(snippet, encoding="utf-8")
        load_config(path, [])
