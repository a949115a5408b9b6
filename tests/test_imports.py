"""Who imports whom: downward only, and each outside library behind its one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import PROJECT

# Top to bottom; a module may import from its own level and from those below it.
LEVELS = (
    ("run_cv", "make_submission"),
    ("pipeline.search",),
    ("pipeline.run.cv", "pipeline.run.score"),
    ("pipeline.run.plan", "pipeline.audit", "pipeline.report"),
    ("pipeline.run.parallel_folds", "pipeline.run.image_groups"),
    ("pipeline.training",),
    ("pipeline.prediction",),
    ("pipeline.images",),
    ("pipeline.model",),
    ("pipeline.competition", "pipeline.thresholds", "pipeline.competition.folds", "pipeline.run.folder"),
    (
        "pipeline.config",
        "pipeline.device",
        "pipeline.run.environment",
        "pipeline.seeds",
        "pipeline.commands",
        "pipeline.files",
    ),
    ("pipeline.processes",),
    ("pipeline.threads",),
    ("pipeline.errors",),
)
DOORS = {
    "albumentations": {"pipeline.images.augmentation.albumentations_adapter"},
    "iterstrat": {"pipeline.competition.folds.stratify"},
    "optuna": {
        "pipeline.search.samplers",
        "pipeline.search.study",
        "pipeline.search.storage",
        "pipeline.search.result",
        "pipeline.search.figures",
        "pipeline.thresholds.optuna_tuning",
    },
    "rich": {
        "pipeline.report.console",
        "pipeline.report.live",
        "pipeline.search.table",
        "pipeline.audit.table",
        "make_submission",
        "run_cv",
    },
}
SLOW_TO_IMPORT = ("iterstrat", "sklearn", "scipy.stats")  # seconds, which only who uses them waits for
DRAWING = {"pipeline.report.figures", "pipeline.report.attention", "pipeline.report.curves", "pipeline.search.figures"}
WITHOUT_TORCH = (
    "pipeline.thresholds",
    "pipeline.competition",
    "pipeline.config",
    "pipeline.competition.folds",
    "pipeline.run.folder",
    "pipeline.files",
)


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted([*PROJECT.glob("*.py"), *(PROJECT / "pipeline").rglob("*.py")]):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "absolute imports only"
            found.add(node.module)
    return found


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _level(module: str) -> int:
    levels = [depth for depth, names in enumerate(LEVELS) if any(_inside(module, name) for name in names)]
    assert levels, f"{module} has no level: give it one in LEVELS"
    return levels[0]


MODULES = dict(_modules())


def test_all_modules_are_seen() -> None:
    assert len(MODULES) > 35


@pytest.mark.parametrize("module", [name for name in MODULES if name != "pipeline"])
def test_imports_go_downward(module: str) -> None:
    upward = {
        other for other in _imports(MODULES[module]) if other.startswith("pipeline.") and _level(other) < _level(module)
    }
    assert not upward


@pytest.mark.parametrize("module", MODULES)
def test_each_library_has_one_door(module: str) -> None:
    for library, doors in DOORS.items():
        if any(_inside(imported, library) for imported in _imports(MODULES[module])):
            assert module in doors, f"{module} imports {library}"


@pytest.mark.parametrize("module", [name for name in MODULES if any(_inside(name, room) for room in WITHOUT_TORCH)])
def test_these_rooms_know_no_torch(module: str) -> None:
    assert not any(_inside(imported, "torch") for imported in _imports(MODULES[module]))


@pytest.mark.parametrize("module", MODULES)
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(module: str) -> None:
    tree = MODULES[module]
    at_once = _imports(ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], []))
    assert not [name for name in at_once if any(_inside(name, library) for library in SLOW_TO_IMPORT)]
    if module not in DRAWING:
        assert not [name for name in at_once if _inside(name, "matplotlib") or name in DRAWING]
