"""Private scores of submissions: a posterior from cross-validated and public scores, and the final picks by it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.metrics.targets import Floats

_TIMES = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])  # of the standard error of a cross-validated score
_FLAT = 1e4  # times that error: the prior deviation of what all submissions share
_DRAWS = 4_000


class Submissions(NamedTuple):
    """S submissions, greater is better; NaN where a score is not known.

    Attributes:
        expected: (S,) the test scores by cross-validation.
        expected_error: (S,) their standard errors, for all test rows.
        public: (S,) the public scores.
        similarity: (S, S) correlations of the submissions.
        row_variance: of the score of one row: the squared standard error of a cross-validated score, times its rows.
        rows: the number of cross-validated rows.
        public_rows: the number of public test rows.
        private_rows: the number of the others.
    """

    expected: Floats
    expected_error: Floats
    public: Floats
    similarity: Floats
    row_variance: float
    rows: float
    public_rows: float
    private_rows: float

    @property
    def public_error(self) -> Floats:
        """(S,) standard errors of the expected scores for the public rows, which vary more than all test rows do."""
        fewer = 1.0 / self.public_rows - 1.0 / (self.public_rows + self.private_rows)
        return np.asarray(np.sqrt(self.expected_error**2 + self.row_variance * fewer))


def draw_private(given: Submissions, seed: int = 0) -> Floats:
    """Draws (4000, S) of the private scores from their posterior.

    expected = θ + b + η + rows, public = θ + rows, private = θ + rows: Gaussians around the true scores θ.
        rows: variance row_variance / rows; submissions share it as far as they are similar.
        θ: a common value, and deviations τ that similar submissions share.
        b: what cross-validation gets wrong about all submissions alike, from `expected_error` beyond its rows.
        η: what it gets wrong about a single one, such as a fit to the folds.
    τ and η are not known: each pair out of a grid is weighted by the likelihood of the scores.
    """
    count, rng = len(given.public), np.random.default_rng(seed)
    alike = np.clip(given.similarity, 0.0, 1.0) * (1 - 1e-3) + 1e-3 * np.eye(count)
    error = float(np.sqrt(given.row_variance / given.rows))
    of_rows = given.row_variance * (1.0 / given.rows + 1.0 / (given.public_rows + given.private_rows))
    shared = max(0.0, float(np.nanmean(given.expected_error**2)) - of_rows)
    seen = np.concatenate([given.expected, given.public])
    known, center = np.flatnonzero(~np.isnan(seen)), np.nanmean(seen)
    fits = []
    for spread, unlike in np.stack(np.meshgrid(_TIMES[1:], _TIMES), axis=-1).reshape(-1, 2) * error:
        truth = spread**2 * alike + (_FLAT * error) ** 2
        by_folds = truth + shared + unlike**2 * np.eye(count) + given.row_variance / given.rows * alike
        by_public = truth + given.row_variance / given.public_rows * alike
        covariance = np.block([[by_folds, truth], [truth, by_public]])[np.ix_(known, known)]
        across = np.concatenate([truth, truth], axis=1)[:, known]
        solved = np.linalg.solve(covariance, np.column_stack([across.T, seen[known] - center]))
        likelihood = -0.5 * ((seen[known] - center) @ solved[:, -1] + np.linalg.slogdet(covariance)[1])
        left = truth - across @ solved[:, :-1] + given.row_variance / given.private_rows * alike
        fits.append((likelihood, center + across @ solved[:, -1], left))
    weights = np.exp(np.array([fit[0] for fit in fits]) - max(fit[0] for fit in fits))
    counts = rng.multinomial(_DRAWS, weights / weights.sum())
    draws = [rng.multivariate_normal(mean, left, times) for times, (_, mean, left) in zip(counts, fits, strict=True)]
    return np.concatenate(draws)


def pick(draws: Floats, count: int) -> list[int]:
    """The submissions to pick: the best mean of the draws (D, S), then each that raises the mean of the best most.

    That is one with a good score of its own that errs otherwise than those picked before.
    """
    picked: list[int] = []
    best = np.full((len(draws), 1), -np.inf)
    for _ in range(min(count, draws.shape[1])):
        means = np.maximum(best, draws).mean(axis=0)
        means[picked] = -np.inf
        picked.append(int(means.argmax()))
        best = np.maximum(best, draws[:, [picked[-1]]])
    return picked
