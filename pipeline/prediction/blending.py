"""Blends: weighted means of several members' predictions, whose mean and weights are chosen out of fold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from pipeline.metrics.bootstrap import Resamples
from pipeline.metrics.registry import Metric
from pipeline.metrics.targets import Bits, Floats, Ints, Targets, split_targets, take_rows
from pipeline.prediction.blend_weights import WEIGHTS, Sums, fit_weights, product_sums
from pipeline.thresholds.policies import POLICIES
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import threshold_problem

Logits = NDArray[np.float32]
Method = tuple[str, str]

MEANS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "probability": (expit, np.asarray),
    "logit": (np.asarray, expit),
    "power 2": (lambda logits: expit(logits) ** 2, np.sqrt),
    "power 0.5": (lambda logits: np.sqrt(expit(logits)), np.square),
    "rank": (np.asarray, np.asarray),  # see `_scaled` and `_unscaled`
}
"""Scales that are averaged: from logits, and back to probabilities."""
METHODS: tuple[Method, ...] = tuple((mean, kind) for kind in WEIGHTS for mean in MEANS)
"""All methods, the simplest first: from no fitted number to M weights per label."""

_RESAMPLES, _MOST_CELLS = 100, 500_000  # for standard errors: cells in one resample
_CLIP = 1e-12  # smallest distance of a probability from 0 and 1, where its logit is infinite


class Blend(NamedTuple):
    """A weighted mean: weights (K, M) of M members, each row with the sum 1."""

    mean: str
    kind: str
    weights: Floats

    def apply(self, out_of_fold: Logits, logits: Logits) -> Floats:
        """Probabilities (n, K) for logits (K, M, n).

        Ranks are taken among the members' `out_of_fold` logits (K, M, N), so no row depends on the others.
        """
        columns = [
            _unscaled(self.mean, weights @ _scaled(self.mean, rows, known), known)
            for weights, rows, known in zip(self.weights, logits, out_of_fold, strict=True)
        ]
        return np.stack(columns, axis=1).astype(np.float64)


class BlendFit(NamedTuple):
    """A blend fitted on N rows, and what is known about it out of fold.

    Attributes:
        blend: fitted on all rows.
        probabilities: (N, K) cross-fitted: method and weights of a row have not seen the targets of its part.
        scores: of each method with cross-fitted weights, decided as often as labels are positive. The choice was
            made by these.
        fold_methods: the method that was chosen without each part, ascending.
        alone: (M,) the score of each member.
        left_out: (M,) the score of the chosen method without each member; NaN of a single one.
        correlation: (M,) of a member's logits with those of the others, the mean over labels; NaN of a single one.
    """

    blend: Blend
    probabilities: Floats
    scores: dict[Method, float]
    fold_methods: tuple[Method, ...]
    alone: Floats
    left_out: Floats
    correlation: Floats


def member_logits(tables: Sequence[Floats]) -> Logits:
    """Logits (K, M, N) of M tables (N, K) of probabilities in [0, 1]."""
    logits = np.empty((tables[0].shape[1], len(tables), len(tables[0])), np.float32)
    for member, table in enumerate(tables):
        logits[:, member] = logit(np.clip(table, _CLIP, 1.0 - _CLIP)).T
    return logits


def fit_blend(
    metric: Metric,
    targets: Targets,
    logits: Logits,
    parts: Ints,
    *,
    rules: RowRules | None = None,
    groups: Ints | None = None,
) -> BlendFit:
    """Choose the mean and the weights of M members.

    The first of `METHODS` is taken, and then a later one wherever its score is higher by more than the standard error
    of the paired difference. Both are of tables with cross-fitted weights. The choice for the rows of a part is made
    on the other parts.

    Args:
        metric: the competition's. Decisions are made as often as labels are positive (`prevalence`).
        targets: (N, K), see `split_targets`.
        logits: (K, M, N) out of fold.
        parts: (N,) the fold of each row.
        rules: the row rules.
        groups: (N,) rows of one group are resampled together.
    """
    bits, known = split_targets(targets)
    part_ids, part_of = np.unique(parts, return_inverse=True)
    tables: dict[Method, Floats] = {}
    sums: dict[str, Sums] = {}
    for mean in MEANS:
        scaled = _all_scaled(mean, logits)
        sums[mean] = np.stack([product_sums(own, bits[:, k], known[:, k], part_of) for k, own in enumerate(scaled)])
        for kind in WEIGHTS:
            tables[mean, kind] = _cross_fitted((mean, kind), scaled, sums[mean], part_of, logits)
    contest = _Contest(metric, np.asarray(targets), rules, groups)
    shown = {method: contest.shown(table) for method, table in tables.items()}
    chosen = contest.choose(shown, np.ones(len(bits), np.bool_))
    fold_methods = tuple(contest.choose(shown, part_of != part) for part in range(part_ids.size))
    probabilities = tables[chosen].astype(np.float64)
    for part, method in enumerate(fold_methods):
        if method != chosen:
            of_part = part_of == part
            probabilities[of_part] = _on_scale_of(tables[chosen], tables[method], of_part)
    scores = {method: metric.function(targets, table).value for method, table in shown.items()}
    del tables, shown
    members, without, scaled = range(logits.shape[1]), [], _all_scaled(chosen[0], logits)
    for out in members if len(members) > 1 else ():
        rest = np.delete(np.delete(sums[chosen[0]], out + 2, axis=2), out + 2, axis=3)
        kept = np.delete(members, out)
        without.append(contest.score(_cross_fitted(chosen, scaled, rest, part_of, logits, kept)))
    return BlendFit(
        Blend(*chosen, fit_weights(chosen[1], sums[chosen[0]].sum(axis=1))),
        probabilities,
        scores,
        fold_methods,
        alone=np.array([contest.score(expit(logits[:, member].T)) for member in members]),
        left_out=np.array(without or [np.nan]),
        correlation=_correlation(logits),
    )


class _Contest:
    """Scores of methods on the same rows, and the standard errors of their differences.

    For these at most 5e5 cells are resampled, in whole groups.
    """

    def __init__(self, metric: Metric, targets: NDArray[Any], rules: RowRules | None, groups: Ints | None) -> None:
        self._metric, self._targets, self._rules = metric, targets, rules
        group_of = np.unique(np.arange(len(targets)) if groups is None else groups, return_inverse=True)[1]
        order = np.random.default_rng(0).permutation(int(group_of.max()) + 1)
        fits = np.cumsum(np.bincount(group_of)[order]) <= _MOST_CELLS // targets.shape[1]
        self._rows = np.isin(group_of, order[: max(2, int(fits.sum()))])
        self._resampled: dict[Method, Floats] = {}
        self._resamples = Resamples(
            metric, take_rows(targets, self._rows), tables=1, groups=group_of[self._rows], resamples=_RESAMPLES
        )

    def shown(self, table: Floats) -> Bits | Floats:
        """The input of the metric: probabilities (N, K), or decisions as often as labels are positive."""
        if self._metric.takes == "probabilities":
            return table
        problem = threshold_problem(self._metric, self._targets, table, self._rules)
        return problem.rules.apply(problem.probabilities, POLICIES["prevalence"](problem))

    def score(self, table: Floats) -> float:
        """The metric of a table of probabilities (N, K)."""
        return self._metric.function(self._targets, self.shown(table)).value

    def choose(self, shown: Mapping[Method, Bits | Floats], mask: NDArray[np.bool_]) -> Method:
        """The method that the rows in a mask (N,) choose."""
        sign, targets = 1.0 if self._metric.greater_is_better else -1.0, take_rows(self._targets, mask)
        values = {key: sign * self._metric.function(targets, take_rows(own, mask)).value for key, own in shown.items()}
        chosen = METHODS[0]
        for later in METHODS[1:]:
            gain = values[later] - values[chosen]
            if gain > 0 and gain > self._deviation(shown, later, chosen) / math.sqrt(len(targets)):
                chosen = later
        return chosen

    def _deviation(self, shown: Mapping[Method, Bits | Floats], *pair: Method) -> float:
        """The standard error of the difference of two methods on one row."""
        for method in pair:
            if method not in self._resampled:
                self._resampled[method] = self._resamples.scores(take_rows(shown[method], self._rows))
        differences = self._resampled[pair[0]] - self._resampled[pair[1]]
        known = differences[~np.isnan(differences)]
        return float(known.std()) * math.sqrt(self._rows.sum()) if known.size else math.inf


def _on_scale_of(table: Floats, other: Floats, rows: NDArray[np.bool_]) -> Floats:
    """Some rows of the table `other`, read off the distribution of `table` label by label: both (N, K)."""
    pairs = zip(other.T, table.T, strict=True)
    return np.stack([np.interp(own[rows], np.sort(own), np.sort(column)) for own, column in pairs], axis=1)


def _scaled(mean: str, logits: Logits, out_of_fold: Logits) -> NDArray[Any]:
    """Logits (M, n) of a label on the scale of a mean; a rank is the share of `out_of_fold` (M, N) below, ties half."""
    if mean != "rank":
        return np.asarray(MEANS[mean][0](logits))
    ranks = np.empty(logits.shape, np.float32)
    for place, (rows, known) in enumerate(zip(logits, np.sort(out_of_fold, axis=1), strict=True)):
        order = np.argsort(rows)  # sorted rows are found faster
        ordered = rows[order]
        ranks[place, order] = np.searchsorted(known, ordered) + np.searchsorted(known, ordered, side="right")
    return np.asarray(ranks / (2 * out_of_fold.shape[1]))


def _unscaled(mean: str, values: NDArray[Any], out_of_fold: Logits) -> NDArray[Any]:
    """Probabilities of a label's means; a rank is read off the mean quantiles of the members, so labels compare."""
    if mean != "rank":
        return np.asarray(MEANS[mean][1](values))
    quantiles = np.sort(out_of_fold, axis=1).mean(axis=0)
    return np.asarray(expit(np.interp(values, (np.arange(quantiles.size) + 0.5) / quantiles.size, quantiles)))


def _all_scaled(mean: str, logits: Logits) -> Logits:
    scaled = np.empty_like(logits)
    for own, rows in zip(scaled, logits, strict=True):
        own[:] = _scaled(mean, rows, rows)
    return scaled


def _cross_fitted(
    method: Method, scaled: NDArray[Any], sums: Sums, part_of: Ints, logits: Logits, kept: Ints | slice = slice(None)
) -> Floats:
    """The blend (N, K) of the `kept` members, whose weights have not seen a row's part; `sums` are of these members."""
    mean, kind = method
    whole, rows = sums.sum(axis=1), np.arange(part_of.size)
    weights = np.stack([fit_weights(kind, whole - sums[:, part]) for part in range(sums.shape[1])])  # (P, K, M)
    blended = np.empty((rows.size, len(scaled)), np.float32, order="F")
    for label, values in enumerate(scaled):
        means = (weights[:, label].astype(np.float32) @ values[kept])[part_of, rows]
        blended[:, label] = _unscaled(mean, means, logits[label][kept])
    return np.clip(blended, 0.0, 1.0)


def _correlation(logits: Logits) -> Floats:
    """(M,) see `BlendFit`; a member that is constant on a label correlates by 0 there."""
    members = logits.shape[1]
    total = np.zeros((members, members))
    for rows in logits:
        moved = rows - rows.mean(axis=1, keepdims=True)
        norms = np.sqrt((moved**2).sum(axis=1))
        total += (moved @ moved.T) / np.maximum(np.outer(norms, norms), 1e-9)
    others = ~np.eye(members, dtype=bool)
    return np.array(
        [own[rest].mean() if members > 1 else np.nan for own, rest in zip(total, others, strict=True)]
    ) / len(logits)
