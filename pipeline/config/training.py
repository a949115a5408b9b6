"""The sections that change the weights: augmentation, network, loss, training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.section import (
    MOST,
    After,
    Duration,
    Gamma,
    NonNegative,
    PerLabelBelowOne,
    PerLabelNonNegative,
    Positive,
    PositiveInt,
    Section,
    Seed,
    Share,
)

_UpTo100 = Annotated[float, Field(ge=0, le=100)]  # so that losses stay finite in float32


Width = Annotated[int, Field(gt=0, le=65_536)]


class MixConfig(Section):
    """Mixing of the images of a training batch; 0 switches a method off."""

    mixup: Gamma = 0.0
    cutmix: Gamma = 0.0
    probability: Share = 1.0


class AugmentConfig(Section):
    """Albumentations by name, applied in this order to training images; or the name of a preset."""

    mix: MixConfig = MixConfig()
    train: Literal["light", "medium", "heavy"] | list[dict[str, dict[str, Any] | None]] = [
        {"HorizontalFlip": {"p": 0.5}},
        {
            "Affine": {
                "scale": [0.85, 1.15],
                "translate_percent": [-0.08, 0.08],
                "rotate": [-15, 15],
                "p": 0.7,
            }
        },
        {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02, "p": 0.5}},
    ]


class ModelConfig(Section):
    """The network; `head: gap` is average pooling with one linear layer, the baseline to beat."""

    head: Literal["q2l", "gap"] = "q2l"
    backbone: str = "resnet50"
    pretrained: bool = True
    backbone_weights: str | None = None
    weights: str | None = None
    feature_stride: Annotated[int, Field(gt=0, le=1024)] = 32
    hidden_dim: Width = 512
    heads: Annotated[int, Field(gt=0, le=1024)] = 4
    ffn_dim: Width = 2048
    encoder_layers: Annotated[int, Field(ge=0, le=100)] = 1
    decoder_layers: Annotated[int, Field(gt=0, le=100)] = 2
    self_attention: Literal["none", "first", "others", "all"] = "none"
    input_projection: bool = True
    pre_norm: bool = False
    pooled_residual: bool = False
    query_groups: Annotated[int, Field(gt=0, le=1_000_000)] | None = None
    query_init: str | None = None
    freeze: list[Literal["stem", "batch_norm"]] = []
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _widths_divide(self) -> Self:
        if self.hidden_dim % self.heads or self.hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by heads ({self.heads}) and by 4, got {self.hidden_dim}")
        return self


class LossConfig(Section):
    """The loss and its parameters; a parameter of another loss is kept but not used."""

    name: Literal["asl", "bce", "db", "focal"] = "asl"
    gamma_neg: PerLabelNonNegative = 2.0
    gamma_pos: PerLabelNonNegative = 0.0
    clip: PerLabelBelowOne = 0.0
    differentiate_weight: bool = True
    gamma: Gamma = 2.0
    alpha: Share | None = None
    pos_weight: Positive | None = None
    rebalance_alpha: _UpTo100 = 0.1
    rebalance_beta: _UpTo100 = 10.0
    rebalance_mu: _UpTo100 = 0.3
    tolerance_lambda: Annotated[float, Field(gt=0, le=100)] = 5.0
    tolerance_kappa: _UpTo100 = 0.05


class FeaturesConfig(Section):
    """The stored feature maps of `train.frozen_backbone`."""

    copies: PositiveInt = 4


def _positive_or_auto(epochs: int | Literal["auto"]) -> int | Literal["auto"]:
    if epochs != "auto" and not 1 <= epochs <= MOST:
        raise ValueError(f"should be from 1 to {MOST:,}, or auto")
    return epochs


class TrainConfig(Section):
    """The training of one fold."""

    epochs: Annotated[int | Literal["auto"], AfterValidator(_positive_or_auto)] = 40
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    lr: Positive = 1e-4
    backbone_lr: Positive | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    frozen_backbone: bool = False
    freeze_backbone_epochs: Annotated[int, Field(ge=0, le=MOST)] = 0
    weight_decay: NonNegative = 0.01
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9997
    clip_grad: Positive | None = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    sync_batch_norm: bool = True
    select: Literal["last", "best"] = "last"
    seed: Seed = 0
    workers: Annotated[Annotated[int, Field(ge=0, le=1000)] | Literal["auto"], After] = "auto"
    parallel_folds: Annotated[Annotated[int, Field(gt=0, le=1000)], After] = 1
    executor: Annotated[Literal["local", "ray"], After] = "local"
    ray_address: Annotated[str | None, After] = None
    checkpoint_minutes: Annotated[Positive, After] = 10.0
    seeds: Annotated[Annotated[int, Field(gt=0, le=1000)], After] = 1
    full_fit: Annotated[bool, After] = False
    time_budget: Annotated[Duration | None, After] = None

    @property
    def epoch_count(self) -> int:
        """The number of epochs, after a plan has replaced `auto`."""
        assert isinstance(self.epochs, int)
        return self.epochs
