"""Prints the ledger of submissions, and the final picks."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.console import number, print_note
from pipeline.errors import ConfigError
from pipeline.metrics.posterior import draw_private, pick
from pipeline.run.ledger import USUAL_SHARE, read_ledger, sign_of, submissions


def print_ledger(console: Console) -> None:
    """Print each submission with its scores, and how cross-validation and the public scores rank them."""
    entries = read_ledger()
    given = submissions(entries)
    private, sign = draw_private(given), sign_of(entries)
    low, high = (np.quantile(private, level, axis=0).tolist() for level in (0.025, 0.975))
    drawn = Table(
        title=f"Submissions by {next(entry.metric for entry in entries if entry.metric)}", title_justify="left"
    )
    names = ("", "file", "cross-fitted", "public, by cross-validation", "public", "private, by both", "note")
    for name in names:
        drawn.add_column(name, justify="left" if name in ("file", "note") else "right", overflow="fold")
    for place, entry in enumerate(entries):
        reach = 1.96 * given.public_error[place]
        gap = given.public[place] - given.expected[place]
        fits = "" if np.isnan(gap) else " fits" if abs(gap) <= reach else " too high" if sign * gap > 0 else " too low"
        drawn.add_row(
            str(place + 1),
            entry.file,
            number(entry.cross_fitted),
            _ends(sign, given.expected[place] - reach, given.expected[place] + reach) if entry.cross_fitted else "-",
            number(entry.public) + fits,
            _ends(sign, low[place], high[place]),
            entry.note,
        )
    console.print(drawn)
    both = ~np.isnan(given.expected + given.public)
    if both.sum() > 2:
        ranks = [values[both].argsort().argsort() for values in (given.expected, given.public)]
        correlation = np.asarray(np.corrcoef(ranks))[0, 1]
        console.print(f"rank correlation of cross-validated and public scores: {correlation:+.2f}")
    if all(entry.public_share is None for entry in entries):
        print_note(
            console, f"the public share of the rows is not known, {USUAL_SHARE} is supposed; give --public-share"
        )


def print_picks(console: Console, number_of_picks: str) -> None:
    """Print the final picks. Raises ConfigError where the number is none."""
    if not number_of_picks.isdecimal() or number_of_picks == "0":
        raise ConfigError(
            f"ledger pick {number_of_picks}", expected="the number of picks", remedy="write: ledger pick 2"
        )
    entries = read_ledger()
    given = submissions(entries)
    draws, sign = draw_private(given), sign_of(entries)
    picks = pick(draws, int(number_of_picks))
    for order, place in enumerate(picks):
        alike = max((given.similarity[place, other] for other in picks[:order]), default=None)
        why = "the best by both scores" if alike is None else f"correlation {alike:.2f} with those above"
        console.print(
            f"{order + 1}. {entries[place].file} ({entries[place].sha256[:12]}): private score "
            f"{sign * draws[:, place].mean():.4f} expected; {why}",
            markup=False,
        )


def _ends(sign: float, *ends: float) -> str:
    return " to ".join(number(float(end)) for end in sorted(sign * np.array(ends)))
