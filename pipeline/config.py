"""The complete, frozen schema of a run: `load_config(path, overrides) -> Config`.

A config file is a short YAML diff over the defaults below; `configs/base.yaml` spells all of them out.
Each key is either *training* (it shapes the weights: a run folder whose training keys differ is refused)
or *after* (it applies to finished folds without training again).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from pipeline.errors import ConfigError, listing, nearest


class After:
    """Marks a key, or a section with all its keys, that applies to finished folds without training."""


class Section(BaseModel):
    """A frozen part of the config that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class ImageFiles(Section):
    """Where an id's image lies: a CSV column with paths relative to that CSV, or a template with `{id}`."""

    column: str | None = "img_path"
    template: str | None = None
    test_template: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_template_replaces_the_column(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("template") is not None and "column" not in data:
            return {**data, "column": None}
        return data

    @model_validator(mode="after")
    def _exactly_one_way(self) -> Self:
        if (self.column is None) == (self.template is None):
            raise ValueError("name either a column or a template, not both and not neither")
        for template in (self.template, self.test_template):
            if template is not None and "{id}" not in template:
                raise ValueError(f"a template must hold {{id}}, got '{template}'")
        if self.test_template is not None and self.template is None:
            raise ValueError("test_template goes with template; with a column the test CSV names the files")
        return self


class WideLabels(Section):
    """One 0/1 column per label; the columns are the sample submission's unless listed here."""

    format: Literal["wide"] = "wide"
    columns: list[str] | None = None


class DelimitedLabels(Section):
    """Label names in one cell, joined by a separator; an empty cell is a row without labels."""

    format: Literal["delimited"] = "delimited"
    column: str
    separator: Annotated[str, Field(min_length=1)] = " "


def _label_format(data: Any) -> str:
    found = data.get("format", "wide") if isinstance(data, Mapping) else getattr(data, "format", "wide")
    return str(found)


Labels = Annotated[
    Annotated[WideLabels, Tag("wide")] | Annotated[DelimitedLabels, Tag("delimited")],
    Discriminator(_label_format),
]


class GroupColumn(Section):
    """The training CSV's column whose values must not be split between folds."""

    column: str


class CompetitionConfig(Section):
    """What the organisers hand out and ask for."""

    root: Annotated[str, After] = "data/mine"
    builtin: Literal["digit_scenes"] | None = None
    train: str = "train.csv"
    test: Annotated[str | None, After] = None
    sample_submission: Annotated[str | None, After] = "sample_submission.csv"
    id: str = "id"
    images: Annotated[ImageFiles, After] = ImageFiles()
    labels: Labels = WideLabels()
    groups: GroupColumn | None = None
    metric: str = "f1_macro"


class FoldsConfig(Section):
    """How rows are dealt into folds."""

    count: Annotated[int, Field(ge=2)] = 5
    seed: int = 0
    file: str | None = None


class ImagesConfig(Section):
    """What the model sees of an image."""

    size: PositiveInt | tuple[PositiveInt, PositiveInt] = 384
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    channels: Literal[1, 3, 4] = 3
    mean: list[float] | None = None
    std: list[Positive] | None = None
    cache: Annotated[str, After] = "auto"

    @property
    def height_width(self) -> tuple[int, int]:
        """The size as (height, width) in pixels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} needs {self.channels} numbers, one per channel, got {len(values)}")
        return self


class AugmentConfig(Section):
    """Albumentations by name, applied in this order to training images."""

    train: list[dict[str, dict[str, Any] | None]] = [
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
    weights: str | None = None
    feature_stride: PositiveInt = 32
    hidden_dim: PositiveInt = 512
    heads: PositiveInt = 4
    ffn_dim: PositiveInt = 2048
    encoder_layers: Annotated[int, Field(ge=0)] = 1
    decoder_layers: PositiveInt = 2
    self_attention: Literal["none", "first", "others", "all"] = "none"
    input_projection: bool = True
    pre_norm: bool = False
    query_groups: PositiveInt | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _widths_divide(self) -> Self:
        if self.hidden_dim % self.heads or self.hidden_dim % 4:
            raise ValueError(f"hidden_dim must be divisible by heads ({self.heads}) and by 4, got {self.hidden_dim}")
        return self


class LossConfig(Section):
    """The loss and its parameters; a parameter of another loss is kept but not used."""

    name: Literal["asl", "bce", "focal"] = "asl"
    gamma_neg: NonNegative = 2.0
    gamma_pos: NonNegative = 0.0
    clip: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gamma: NonNegative = 2.0
    alpha: Share | None = None
    pos_weight: Positive | None = None


class TrainConfig(Section):
    """How the weights of one fold come about."""

    epochs: PositiveInt = 40
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    lr: Positive = 1e-4
    weight_decay: NonNegative = 0.01
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9997
    clip_grad: Positive | None = 1.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    select: Literal["last", "best"] = "last"
    seed: int = 0
    workers: Annotated[Annotated[int, Field(ge=0)] | Literal["auto"], After] = "auto"
    parallel_folds: Annotated[PositiveInt, After] = 1


class ThresholdsConfig(Section):
    """From which probability on a label is predicted."""

    policy: Literal["fixed", "global", "per_label"] = "global"


class PredictConfig(Section):
    """Test-time views, for out-of-fold and test predictions alike, and how they are averaged."""

    views: Annotated[list[str], Field(min_length=1)] = ["identity"]
    average: Literal["probability", "logit"] = "probability"
    batch_size: PositiveInt | None = None


class SubmissionConfig(Section):
    """What the scorer wants to read."""

    format: Literal["wide_binary", "wide_probability", "delimited"] = "wide_binary"
    empty: str = "none"


class Config(Section):
    """Everything a run depends on; complete, frozen and checked."""

    competition: CompetitionConfig = CompetitionConfig()
    folds: FoldsConfig = FoldsConfig()
    images: ImagesConfig = ImagesConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    thresholds: Annotated[ThresholdsConfig, After] = ThresholdsConfig()
    predict: Annotated[PredictConfig, After] = PredictConfig()
    submission: Annotated[SubmissionConfig, After] = SubmissionConfig()


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML diff, lay `key.path=value` overrides over it and check all of it at once.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or keys or values are wrong; every mistake
            is in the one message.
    """
    data = _read_yaml(path)
    for override in overrides:
        _apply_override(data, override)
    return check_config(data, source=str(path))


def check_config(data: Mapping[str, Any], *, source: str) -> Config:
    """The Config that `data` describes; `source` names it in the one ConfigError that holds all mistakes."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        mistakes = [_sentence(dict(details)) for details in error.errors(include_url=False)]
        plural = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise ConfigError(
            f"{source}: {plural} in the configuration\n" + "\n".join(f"  - {mistake}" for mistake in mistakes),
            remedy="correct these keys; configs/base.yaml lists every key with its meaning",
        ) from None


def dump_config(config: Config) -> str:
    """The complete config as YAML text; `check_config(yaml.safe_load(text))` gives it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def changed_training_keys(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted training keys whose values differ, as {key: (old, new)}; after keys are not looked at."""
    before, now = (dict(_leaves(config.model_dump(mode="json"))) for config in (old, new))
    missing = object()
    return {
        key: (before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if before.get(key, missing) != now.get(key, missing) and not applies_after(key)
    }


def applies_after(key: str) -> bool:
    """Whether the dotted `key` is an after key; raises KeyError for a key the schema does not know."""
    section: Any = Config
    for name in key.split("."):
        fields = getattr(section, "model_fields", None)
        if fields is None:  # inside a free value or a union of sections: what holds it was a training key
            return False
        if After in fields[name].metadata:
            return True
        section = fields[name].annotation
    return False


def unused_keys(config: Config) -> list[str]:
    """Sentences on keys that were set but do nothing beside the other choices of this config."""
    used_by = {
        "asl": {"gamma_neg", "gamma_pos", "clip"},
        "bce": {"pos_weight"},
        "focal": {"gamma", "alpha"},
    }
    idle = config.loss.model_fields_set - used_by[config.loss.name] - {"name"}
    return [f"loss.{key} is set but loss.name={config.loss.name} does not use it" for key in sorted(idle)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, where plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", node.value[position][0].start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file",
            remedy="give the path of a YAML file, for example configs/demo.yaml",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", remedy="give a readable UTF-8 YAML file") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise ConfigError(
            f"{path}: not valid YAML{line}: {getattr(error, 'problem', error)}", remedy="correct that line"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: the file is not a mapping of sections",
            expected="sections such as 'competition:' and 'train:'",
            got=type(data).__name__,
            remedy="start from configs/demo.yaml",
        )
    return data


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    names = key.split(".")
    if not separator or not all(names):
        raise ConfigError(
            f"the override '{override}' is not of the form key.path=value",
            remedy="write it like train.epochs=10 or model.head=gap",
        )
    try:
        value = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        value = text  # a plain string that YAML would read as a broken list or mapping, such as {id}.jpg
    place = data
    for name in names[:-1]:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[name]
    place[names[-1]] = value


def _sentence(details: Mapping[str, Any]) -> str:
    # pydantic puts the chosen tag of a union into the location; it is no key
    location = [part for part in details["loc"] if part not in ("wide", "delimited")]
    key = ".".join(str(part) for part in location)
    if details["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest(str(location[-1]), known) or f"; known here: {listing(known, 12)}"
        return f"{key}: unknown key{hint}"
    if details["type"] == "union_tag_invalid":
        return f"{key}.format: unknown format '{details['ctx']['tag']}'; choose one of wide, delimited"
    got = details.get("input")
    shown = "" if isinstance(got, Mapping | BaseModel) else f", got {got!r}"
    return f"{key or 'config'}: {details['msg'].removeprefix('Value error, ')}{shown}"


def _known_keys(location: Sequence[Any]) -> list[str]:
    section: Any = Config
    for name in location:
        section = section.model_fields[name].annotation if name in section.model_fields else section
        if not hasattr(section, "model_fields"):  # a union: the keys of all its sections
            members = [part for part in _union_members(section) if hasattr(part, "model_fields")]
            return sorted({key for part in members for key in part.model_fields})
    return list(section.model_fields)


def _union_members(annotation: Any) -> Iterator[Any]:
    for part in getattr(annotation, "__args__", ()):
        yield part
        yield from _union_members(part)


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
