"""The example notebook runs from top to bottom in a checkout, and leaves nothing in it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import PROJECT

EXAMPLES = PROJECT / "examples"


def _read(path: Path) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def test_notebooks_are_stored_without_outputs() -> None:
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    assert len(notebooks) >= 1
    for path in notebooks:
        for cell in _read(path).cells:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


def test_digit_scenes_are_trained_and_submitted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the notebook makes its folder
    before = sorted(EXAMPLES.rglob("*"))
    notebook = _read(EXAMPLES / "digit_scenes.ipynb")
    [settings] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source = "EPOCHS = 1"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    [comparison] = [cell for cell in notebook.cells if cell.id == "compare"]
    assert "test" in comparison.outputs[-1].data["text/plain"]
    assert sorted(EXAMPLES.rglob("*")) == before
