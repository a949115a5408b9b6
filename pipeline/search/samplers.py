"""Optuna's samplers and pruners by the names of the config."""

from __future__ import annotations

import optuna

from pipeline.config import SearchConfig
from pipeline.seeds import stable_seed

_STARTUP_TRIALS = 5  # complete trials before a pruner compares


def build_sampler(search: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that `search.sampler` names, for trial `number`.

    The number is part of the seed: otherwise each worker and each later command would try the same values.
    """
    seed = stable_seed("search", search.seed, number) % 2**32
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    startup = max(5, min(10, search.trials // 3))
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup)


def build_pruner(search: SearchConfig, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner that `search.pruner` names, for trials of `epochs` epochs."""
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=max(1, epochs // 4))
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, epochs // 9), max_resource=epochs)
    if search.pruner == "wilcoxon":
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return optuna.pruners.NopPruner()
