"""The whole config: every section with its defaults, and the difference between training and after keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import model_validator

from pipeline.config.after import PredictConfig, SubmissionConfig, ThresholdsConfig, TrackingConfig
from pipeline.config.autopilot import AutopilotConfig
from pipeline.config.competition import CompetitionConfig
from pipeline.config.folds import FoldsConfig
from pipeline.config.images import ImagesConfig
from pipeline.config.recipes import Recipe
from pipeline.config.search import SearchConfig, full_key, refuse_kept
from pipeline.config.section import After, Section
from pipeline.config.training import AugmentConfig, FeaturesConfig, LossConfig, ModelConfig, TrainConfig
from pipeline.errors import repeated_names


class Config(Section):
    """All settings of a run; complete, frozen and checked."""

    recipe: Annotated[Recipe, After] = "auto"
    competition: CompetitionConfig = CompetitionConfig()
    folds: FoldsConfig = FoldsConfig()
    images: ImagesConfig = ImagesConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    features: FeaturesConfig = FeaturesConfig()
    thresholds: Annotated[ThresholdsConfig, After] = ThresholdsConfig()
    predict: Annotated[PredictConfig, After] = PredictConfig()
    submission: Annotated[SubmissionConfig, After] = SubmissionConfig()
    search: Annotated[SearchConfig, After] = SearchConfig()
    tracking: Annotated[TrackingConfig, After] = TrackingConfig()
    autopilot: Annotated[AutopilotConfig, After] = AutopilotConfig()

    @model_validator(mode="after")
    def _known_search_keys(self) -> Self:
        mistakes = []
        keys: list[str] = []
        for name, dimension in self.search.space.items():
            try:
                keys.append(full_key(name))
                refuse_kept(keys[-1], dimension.each_choice)
            except ValueError as error:
                mistakes.append(str(error))
        mistakes += [f"'{key}' occurs twice" for key in repeated_names(keys)]
        if mistakes:
            raise ValueError(f"search.space: {'; '.join(mistakes)}")
        return self

    @model_validator(mode="after")
    def _a_backbone_worth_freezing(self) -> Self:
        if self.train.frozen_backbone and not (
            self.model.pretrained or self.model.backbone_weights or self.model.weights
        ):
            raise ValueError(
                "train.frozen_backbone needs a trained backbone: set model.pretrained: true, model.backbone_weights or "
                "model.weights"
            )
        if self.train.frozen_backbone and (self.augment.mix.mixup or self.augment.mix.cutmix):
            raise ValueError(
                "train.frozen_backbone trains on stored feature maps, so augment.mix cannot mix images: set mixup and "
                "cutmix to 0"
            )
        return self

    @model_validator(mode="after")
    def _a_channel_for_each_file(self) -> Self:
        files = self.competition.images.channel_files
        if files and len(files) != self.images.channels:
            raise ValueError(
                f"competition.images.channel_files names {len(files)} files per image, so images.channels must be "
                f"{len(files)}, got {self.images.channels}"
            )
        return self


def changed_training_keys(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """{dotted training key: (old, new)} of the values that differ; after keys are ignored."""
    changed = changed_keys(old, new)
    same = {key for key, (_, now) in changed.items() if applies_after(key) or (key, now) == ("train.epochs", "auto")}
    return {key: values for key, values in changed.items() if key not in same}


def changed_keys(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """{dotted key: (old, new)} of the values that differ, as in JSON; None where a config has no such key."""
    before, now = (dict(_leaves(config.model_dump(mode="json"))) for config in (old, new))
    missing = object()
    return {
        key: (before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if before.get(key, missing) != now.get(key, missing)
    }


def training_values(config: Config) -> dict[str, Any]:
    """{dotted training key: value as in JSON}."""
    return {key: value for key, value in _leaves(config.model_dump(mode="json")) if not applies_after(key)}


def applies_after(key: str) -> bool:
    """Whether the dotted `key` is an after key. Raises KeyError for an unknown key."""
    section: Any = Config
    for name in key.split("."):
        fields = getattr(section, "model_fields", None)
        if fields is None:  # inside a free value or a union of sections, which a training key holds
            return False
        if After in fields[name].metadata:
            return True
        section = fields[name].annotation
    return False


def unused_keys(config: Config) -> list[str]:
    """One sentence for each key that is set but has no effect in this config."""
    used_by = {
        "asl": {"gamma_neg", "gamma_pos", "clip", "differentiate_weight"},
        "bce": {"pos_weight"},
        "db": {
            *("gamma", "differentiate_weight", "rebalance_alpha", "rebalance_beta", "rebalance_mu"),
            *("tolerance_lambda", "tolerance_kappa"),
        },
        "focal": {"gamma", "alpha", "differentiate_weight"},
    }
    idle = config.loss.model_fields_set - used_by[config.loss.name] - {"name"}
    notes = [f"loss.{key} is set but loss.name={config.loss.name} does not use it" for key in sorted(idle)]
    if config.train.frozen_backbone:
        of_backbone = {"backbone_lr", "layer_decay", "freeze_backbone_epochs", "gradient_checkpointing"}
        set_keys = sorted(of_backbone & config.train.model_fields_set)
        notes += [f"train.{key} is set but train.frozen_backbone leaves nothing for it" for key in set_keys]
    return notes


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
