"""What a row may look like: how many labels it must and may have, which exclude each other, what an empty one gets."""

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
_BLOCK_CELLS = 1_000_000  # that the rules are applied to at once


@dataclass(frozen=True)
class RowRules:
    """Rules that decisions keep row by row, applied after the thresholds.

    Attributes:
        empty: what a row gets in which no probability reaches its threshold: "none" nothing; "argmax" the label
            of its highest probability, whatever the thresholds, the first of equals; a label index that label.
        min_labels: a row with fewer takes further labels, the nearest below their thresholds first.
        max_labels: a row with more keeps those highest above their thresholds; None is no limit.
        exclusive: sets of label indices of which a row keeps one at most, the highest above its threshold.
            A label may be in several sets.

    A margin is probability − threshold; of equal ones the first label goes first. `min_labels` never breaks an
    exclusive set: where the sets leave no further label, a row stays below it.
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
        """Whether the thresholds alone decide."""
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
                self._keep(decisions[rows], probabilities[rows], thresholds)
        return decisions

    def _keep(self, decisions: Bits, probabilities: Floats, thresholds: Floats) -> None:
        """Change the decisions of some rows so that they keep the rules."""
        if self.empty != "none":
            rows = np.flatnonzero(~decisions.any(axis=1))
            decisions[rows, probabilities[rows].argmax(axis=1) if self.empty == "argmax" else self.empty] = 1
        broken = np.flatnonzero(self._breaks(decisions))
        if broken.size:
            decisions[broken] = self._mend(decisions[broken], probabilities[broken] - thresholds)

    def _breaks(self, decisions: Bits) -> NDArray[np.bool_]:
        """Which rows (N,) have too few labels, too many, or two of an exclusive set."""
        counts = np.count_nonzero(decisions, axis=1)
        breaks: NDArray[np.bool_] = counts < self.min_labels
        if self.max_labels is not None:
            breaks |= counts > self.max_labels
        for labels in self.exclusive:
            breaks |= np.count_nonzero(decisions[:, list(labels)], axis=1) > 1
        return breaks

    def _mend(self, decisions: Bits, margins: Floats) -> Bits:
        """Walk each row's labels by descending margin, decided ones first, and take what the rules allow."""
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
        """(K, K): whether two labels share an exclusive set."""
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
    """What a row of decisions over `labels` must look like.

    Raises:
        ConfigError: as `resolve_empty`, and where more labels are asked for than a row may have.
    """
    empty, _ = resolve_empty(submission.empty, labels, submission.format)
    if submission.min_labels > len(labels):
        raise ConfigError(
            f"submission.min_labels={submission.min_labels}, but there are {len(labels)} labels",
            remedy="ask for fewer",
        )
    place = {name: number for number, name in enumerate(labels)}
    exclusive = tuple(tuple(place[name] for name in names) for names in competition.labels.exclusive)
    return RowRules(empty, submission.min_labels, submission.max_labels, exclusive)
