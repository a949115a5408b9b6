"""Prints a blend: the worth of its members, the methods, and the scores."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.console import number
from pipeline.report.tables import print_scores
from pipeline.run.records import BlendRecord, Scores

_SHOWN_METHODS = 5


def print_blend(console: Console, out: Path, record: BlendRecord, scores: Scores) -> None:
    """Print the members, the best methods, the scores and the next step."""
    chosen = f"{record.mean}, {record.kind}"
    title = f"Members by {scores.metric}, out-of-fold, decided as often as labels are positive"
    drawn = Table(title=title, title_justify="left")
    for name in ("member", "mean weight", "alone", "blend without it", "correlation"):
        drawn.add_column(name, justify="left" if name == "member" else "right")
    for member in record.members:
        figures = (member.weight, member.alone, member.left_out, member.correlation)
        drawn.add_row(member.name, *map(number, figures))
    drawn.add_section()
    drawn.add_row(f"blend ({chosen})", "", number(record.scores[chosen]), "", "")
    console.print(drawn)
    ranked = sorted(record.scores.items(), key=lambda item: item[1] or 0.0, reverse=scores.greater_is_better)
    best = "; ".join(f"{name} {number(score)}" for name, score in ranked[:_SHOWN_METHODS])
    console.print(
        f"best methods: {best}; chosen is the simplest that none beats by more than a standard error "
        f"({out / 'blend.json'} has all)"
    )
    others = sorted({*record.fold_methods} - {chosen})
    if others:
        console.print(f"some parts chose another method: {'; '.join(others)}")
    print_scores(console, scores)
    console.print(f"next: python make_submission.py {out}")
