"""The schema: complete, strict, helpful, and marked key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import (
    Config,
    SearchConfig,
    applies_after,
    changed_training_keys,
    check_config,
    dump_config,
    load_config,
    unused_keys,
)
from pipeline.config.recipes import epochs_for, recipe_for
from pipeline.config.section import Section
from pipeline.errors import ConfigError
from tests.conftest import PROJECT

DEFAULT_SPACE = {
    "loss.gamma_neg": {"low": 0, "high": 6},
    "loss.gamma_pos": {"low": 0, "high": 2},
    "loss.clip": {"low": 0, "high": 0.2},
}


def _load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def test_base_yaml_spells_out_every_default() -> None:
    assert yaml.safe_load((PROJECT / "configs/base.yaml").read_text()) == Config().model_dump(mode="json")


def test_every_shipped_config_loads() -> None:
    found = sorted((PROJECT / "configs").rglob("*.yaml"))
    assert len(found) >= 4
    for path in found:
        load_config(path)


def test_a_dumped_config_comes_back_equal(tmp_path: Path) -> None:
    labels, metric = "{format: delimited, column: tags}", "{name: map, labels: [a]}"
    config = _load(tmp_path, f"images: {{size: [64, 96]}}\ncompetition: {{labels: {labels}, metric: {metric}}}")
    assert check_config(yaml.safe_load(dump_config(config)), source="dump") == config


def test_overrides_win_over_the_file_and_keep_its_other_keys(tmp_path: Path) -> None:
    config = _load(tmp_path, "train: {epochs: 3, lr: 1e-3}", "train.epochs=7", "competition.images.template={id}.jpg")
    assert (config.train.epochs, config.train.lr) == (7, 1e-3)  # 1e-3 is a string to YAML
    assert (config.competition.images.template, config.competition.images.column) == ("{id}.jpg", None)


@pytest.mark.parametrize(
    ("text", "override", "space"),
    [
        ("", "lr={low: 1e-5, high: 1}", {**DEFAULT_SPACE, "train.lr": {"low": 1e-5, "high": 1}}),
        ("", "loss.clip.high=0.1", {**DEFAULT_SPACE, "loss.clip": {"low": 0, "high": 0.1}}),
        ("", "loss.clip=null", {key: DEFAULT_SPACE[key] for key in ("loss.gamma_neg", "loss.gamma_pos")}),
        ("search: {space: {lr: {low: 1, high: 2}}}", "train.lr.high=3", {"lr": {"low": 1, "high": 3}}),
        ("search: {space: {train.lr: {low: 1, high: 2}}}", "lr={choices: [1]}", {"train.lr": {"choices": [1]}}),
        (
            "search: {space: {lr: {low: 1, high: 2}}}",
            "loss.clip={low: 0, high: 1}",
            {"lr": {"low": 1, "high": 2}, "loss.clip": {"low": 0, "high": 1}},
        ),
    ],
)
def test_one_key_of_the_search_space_is_overridden_and_the_others_stay(
    tmp_path: Path, text: str, override: str, space: dict[str, Any]
) -> None:
    config = _load(tmp_path, text, f"search.space.{override}")
    assert config.search == SearchConfig.model_validate({"space": space})


def test_a_wrong_override_of_the_space_has_the_message_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.space\.loss\.gamma_neg: write a range as"):
        _load(tmp_path, "", "search.space.loss.gamma_neg=[1, 4]")
    with pytest.raises(ConfigError, match=r"did you mean 'loss\.gamma_neg'"):
        _load(tmp_path, "", "search.space.loss.gama_neg={low: 1, high: 4}")
    with pytest.raises(ConfigError, match=r"search\.space\.loss\.clp"):
        _load(tmp_path, "", "search.space.loss.clp=null")
    with pytest.raises(ConfigError, match=r"search\.space"):
        _load(tmp_path, "search: {space: []}", "search.space.loss.clip=null")


def test_all_mistakes_are_reported_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    text = """
    competition: {imagez: {}, labels: {format: delimited, colum: a}}
    trian: {}
    train: {epochs: -3}
    loss: {name: asll}
    """
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text, "model.backbon=resnet18")
    message = str(caught.value)
    assert "7 mistakes" in message
    for part in (
        "competition.imagez: unknown key; did you mean 'images'?",
        "competition.labels.colum: unknown key; did you mean 'column'?",
        "competition.labels.column: Field required",
        "trian: unknown key; did you mean 'train'?",
        "train.epochs",
        "loss.name",
        "model.backbon: unknown key; did you mean 'backbone'?",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train: {epochs: 1, epochs: 2}", "'epochs' occurs twice"),
        ("train: [1", "not valid YAML at line"),
        ("just words", "not a mapping"),
        ("competition: {images: {column: a, template: 'b/{id}'}}", "not both"),
        ("competition: {images: {template: 'b/id'}}", "must hold {id}"),
        ("images: {mean: [0.5]}", "mean needs 3 numbers"),
        ("model: {hidden_dim: 30, heads: 4}", "divisible by heads"),
        (
            "competition: {metric: {name: map, labls: [a]}}",
            "competition.metric.labls: unknown key; did you mean 'labels'?",
        ),
        ("competition: {metric: {name: map, function: 'a.py:b'}}", "and not both"),
        ("competition: {metric: {function: a.py}}", "expected FILE.py:FUNCTION"),
        (
            "competition: {labels: {missing:ignore}}",
            "missing:ignore: a key without a value; write a blank after the colon",
        ),
        ("submission: {constants: {osd:0.5}}", "osd:0.5: a key without a value; write a blank after the colon"),
        ("competition: {metric: {name: fbeta, beta: 0}}", "competition.metric.beta"),
        ("competition: {metric: 3}", "competition.metric"),
        ("competition: {labels: {format: wid}}", "unknown format 'wid'"),
    ],
)
def test_each_wrong_file_has_its_message(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match="remedy") as caught:
        _load(tmp_path, text)
    assert part in str(caught.value)


def test_a_missing_file_and_a_malformed_override_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"key\.path=value"):
        _load(tmp_path, "", "train.epochs")


def test_after_keys_are_the_documented_ones() -> None:
    after = ("thresholds.policy", "predict.tta", "submission.empty", "images.cache", "train.workers")
    training = ("train.lr", "images.cache_format", "folds.seed", "competition.metric", "competition.labels.columns")
    assert all(applies_after(key) for key in (*after, "competition.root", "train.parallel_folds"))
    assert not any(applies_after(key) for key in training)


def test_base_yaml_marks_exactly_the_after_keys() -> None:
    marked, section, section_is_after = set(), "", False
    for line in (PROJECT / "configs/base.yaml").read_text().splitlines():
        name = line.split(":")[0].strip()
        if line[:1].isalpha():
            section, section_is_after = name, "[after]" in line
        elif line.startswith("  ") and line[2:3].isalpha() and (section_is_after or "[after]" in line):
            marked.add(f"{section}.{name}")
    sections = {name: part for name, part in Config() if isinstance(part, Section)}
    keys = {f"{name}.{key}" for name, part in sections.items() for key in type(part).model_fields}
    assert marked == {key for key in keys if applies_after(key)}


def test_only_training_keys_count_as_changed() -> None:
    other = check_config({"train": {"lr": 1.0, "workers": 3}, "thresholds": {"policy": "fixed"}}, source="x")
    assert changed_training_keys(check_config({}, source="x"), other) == {"train.lr": (1e-3, 1.0)}


@pytest.mark.parametrize(
    ("model", "recipe", "rate"),
    [
        ({}, "finetune_cnn", 1e-3),
        ({"backbone": "tf_efficientnet_lite0"}, "finetune_cnn", 1e-3),
        ({"backbone": "vit_small_patch16_224"}, "finetune_vit", 5e-4),
        ({"backbone": "swinv2_tiny_window8_256"}, "finetune_vit", 5e-4),
        ({"backbone": "convit_tiny", "pretrained": False}, "from_scratch", 1e-4),
        ({"pretrained": False, "weights": "start.safetensors"}, "finetune_cnn", 1e-3),
    ],
)
def test_the_recipe_follows_the_backbone_and_the_configs_own_keys_win(
    model: dict[str, Any], recipe: str, rate: float
) -> None:
    data = {"model": model}
    assert recipe_for(data) == recipe
    config = check_config(data, source="x")
    assert config.train.lr == rate
    assert check_config({**data, "train": {"lr": 0.5}}, source="x").train.lr == 0.5
    assert check_config({**data, "recipe": "official"}, source="x").train.lr == 1e-4
    assert check_config(yaml.safe_load(dump_config(config)), source="x") == config


def test_automatic_epochs_fall_with_the_rows() -> None:
    assert [epochs_for(rows, 32) for rows in (10, 340, 1285, 4000, 100_000)] == [30, 30, 20, 6, 6]


def test_a_key_of_another_loss_is_named_as_unused() -> None:
    for name in ("bce", "db", "focal"):
        config = check_config({"loss": {"name": name, "gamma_neg": 4}}, source="x")
        assert unused_keys(config) == [f"loss.gamma_neg is set but loss.name={name} does not use it"]
