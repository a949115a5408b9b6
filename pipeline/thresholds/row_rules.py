"""Row rules: how many labels a row must and may have, which labels exclude each other, what an empty row gets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.submission.format import resolve_empty
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.errors import ConfigError
from pipeline.metrics.targets import Bits, Floats, blocks

EmptyPolicy = Literal["none", "argmax"] | int
_BLOCK_CELLS = 1_000_000  # cells that the rules are applied to at once


@dataclass(frozen=True)
class RowRules:
    """Rules for the decisions of each row, applied after the thresholds.

    Labels are preferred by margin, probability − threshold; of equal margins the lower label index comes first.

    Attributes:
        empty: for a row in which no probability reaches its threshold. "none" leaves it empty, "argmax" adds the
            label of its highest probability (of equal ones the first), a label index adds that label.
        min_labels: a row with fewer gets further labels, those with the largest margins. An exclusive set is
            never broken for it: a row may stay below.
        max_labels: a row with more keeps those with the largest margins; None is no limit.
        exclusive: sets of label indices; a row keeps at most one label of each, that with the largest margin.
            A label may be in several sets.
    """

    empty: EmptyPolicy = "none"
    min_labels: int = 0
    max_labels: int | None = None
    exclusive: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.min_labels < 0 or (self.max_labels is not None and self.max_labels < max(1, self.min_labels)):
            raise ValueError(
                f"expected 0 <= min_labels <= max_labels and max_labels >= 1, got {self.min_labels}, {self.max_labels}"
            )

    @property
    def trivial(self) -> bool:
        """Whether there is no rule, so that the thresholds alone decide."""
        return self == RowRules()

    def apply(self, probabilities: Floats, thresholds: Floats) -> Bits:
        """Decisions (N, K) 0/1: probability >= threshold, then the rules.

        Args:
            probabilities: (N, K) in [0, 1].
            thresholds: (K,).

        Raises:
            ValueError: the shapes do not fit, or a rule names a label that does not exist.
        """
        if probabilities.ndim != 2 or thresholds.shape != probabilities.shape[1:]:
            raise ValueError(
                f"expected probabilities (N, K), thresholds (K,), got {probabilities.shape}, {thresholds.shape}"
            )
        self._require_labels(thresholds.size)
        decisions = (probabilities >= thresholds).view(np.uint8)
        if not self.trivial:
            for rows in blocks(len(decisions), max(1, _BLOCK_CELLS // thresholds.size)):
                self._apply_rules(decisions[rows], probabilities[rows], thresholds)
        return decisions

    def _apply_rules(self, decisions: Bits, probabilities: Floats, thresholds: Floats) -> None:
        """Changes decisions (n, K) in place."""
        if self.empty != "none":
            rows = np.flatnonzero(~decisions.any(axis=1))
            decisions[rows, probabilities[rows].argmax(axis=1) if self.empty == "argmax" else self.empty] = 1
        violations = np.flatnonzero(self._violates(decisions))
        if violations.size:
            decisions[violations] = self._corrected(decisions[violations], probabilities[violations] - thresholds)

    def _violates(self, decisions: Bits) -> NDArray[np.bool_]:
        """Mask (n,) of the rows with too few labels, too many, or two of an exclusive set."""
        counts = np.count_nonzero(decisions, axis=1)
        violates: NDArray[np.bool_] = counts < self.min_labels
        if self.max_labels is not None:
            violates |= counts > self.max_labels
        for labels in self.exclusive:
            violates |= np.count_nonzero(decisions[:, list(labels)], axis=1) > 1
        return violates

    def _corrected(self, decisions: Bits, margins: Floats) -> Bits:
        """Visits each row's labels, decided ones first, by descending margin, and takes those that the rules allow."""
        rows, labels = np.arange(len(decisions)), decisions.shape[1]
        taken = np.zeros_like(decisions)
        counts = np.zeros(len(decisions), dtype=np.int64)
        blocked = np.zeros(decisions.shape, dtype=np.bool_)
        conflicts = self._conflicts(labels)
        most = labels if self.max_labels is None else self.max_labels
        order = np.lexsort((-margins, 1 - decisions), axis=1)
        for label in order.T:
            wanted = (decisions[rows, label] == 1) | (counts < self.min_labels)
            take = wanted & (counts < most) & ~blocked[rows, label]
            taken[rows, label] = take
            counts += take
            blocked |= conflicts[label] & take[:, None]
        return taken

    def _conflicts(self, labels: int) -> NDArray[np.bool_]:
        """Mask (K, K) of the pairs of labels that share an exclusive set."""
        conflicts = np.zeros((labels, labels), dtype=np.bool_)
        for group in self.exclusive:
            conflicts[np.ix_(group, group)] = True
        return conflicts

    def _require_labels(self, labels: int) -> None:
        if self.empty not in ("none", "argmax") and not (isinstance(self.empty, int) and 0 <= self.empty < labels):
            raise ValueError(f"expected empty 'none', 'argmax' or a label index below {labels}, got {self.empty!r}")
        if not all(0 <= label < labels for label in chain(*self.exclusive)):
            raise ValueError(f"expected exclusive label indices below {labels}, got {self.exclusive}")


def row_rules(submission: SubmissionConfig, competition: CompetitionConfig, labels: tuple[str, ...]) -> RowRules:
    """The row rules of a config, for `labels`.

    Raises:
        ConfigError: as `resolve_empty`, or `min_labels` is larger than the number of labels.
    """
    empty, _ = resolve_empty(submission.empty, labels, submission.format)
    if submission.min_labels > len(labels):
        raise ConfigError(
            f"submission.min_labels={submission.min_labels}, but there are {len(labels)} labels",
            remedy=f"set it to {len(labels)} or fewer",
        )
    place = {name: number for number, name in enumerate(labels)}
    exclusive = tuple(tuple(place[name] for name in names) for names in competition.labels.exclusive)
    return RowRules(empty, submission.min_labels, submission.max_labels, exclusive)
