"""Prints an audit: notes, warnings and errors with their remedies, then "ready" or "not ready"."""

from __future__ import annotations

from rich.console import Console

from pipeline.audit.findings import Audit, Finding, Pair
from pipeline.console import print_marked
from pipeline.errors import listing

_SHOWN = 5
_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_audit(console: Console, audit: Audit) -> None:
    """Print all findings, errors last so that they stay in sight, then the verdict."""
    for level in ("note", "warning", "error"):
        for finding in audit.of(level):
            _print_finding(console, finding)
    errors, warnings = len(audit.errors), len(audit.of("warning"))
    counted = f"{errors} errors, {warnings} warnings"
    print_marked(console, *(("ready", "green") if audit.ready else ("not ready", "red")), f"({counted})")


def _print_finding(console: Console, finding: Finding) -> None:
    print_marked(console, f"{finding.level}:", _STYLES[finding.level], finding.message)
    if finding.items:
        console.print(f"    {listing(map(_item, finding.items), _SHOWN)}")
    if finding.remedy:
        console.print(f"    remedy: {finding.remedy}")


def _item(item: object) -> str:
    if isinstance(item, Pair):
        return f"{item.first} = {item.second} ({item.how}, {item.similarity:.3f})"
    return " ".join(map(str, item)) if isinstance(item, tuple | list) else str(item)
