"""The search space: names, buckets, own values, refused values."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.config import Config, check_config, full_key, searchable_keys
from pipeline.errors import ConfigError
from pipeline.search.space import (
    HEAD_KEYS,
    config_with,
    diff_of,
    diff_text,
    frequency_buckets,
    own_values,
    parameters_of,
)

LABELS = ("a", "b", "c", "d", "e")
POSITIVES = (50, 3, 20, 7, 100)


def make(search: dict[str, Any], **sections: Any) -> Config:
    return check_config({"search": search, **sections}, source="test")


def names(config: Config) -> list[str]:
    return [parameter.name for parameter in parameters_of(config, LABELS, POSITIVES)]


class TestKeys:
    def test_a_short_name_means_the_one_key_of_that_name(self) -> None:
        assert full_key("lr") == "train.lr"
        assert full_key("loss.clip") == "loss.clip"
        assert full_key("augment") == "augment"

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("loss.gama_neg", "did you mean 'loss.gamma_neg'?"),
            ("train.epochs", "set search.epochs"),
            ("train.seed", "luck"),
            ("train.precision", "one for the whole process"),
            ("thresholds.policy", "no training key"),
            ("images.cache", "no training key"),
        ],
    )
    def test_other_keys_are_refused_with_the_config(self, name: str, part: str) -> None:
        with pytest.raises(ConfigError, match="1 mistake") as caught:
            make({"space": {name: {"low": 0, "high": 1}, "lr": {"low": 1e-5, "high": 1e-3}}})
        assert part in str(caught.value)

    @pytest.mark.parametrize(
        ("section", "choice", "part"),
        [
            ("train", {"lr": 1e-3, "seed": 1}, "'train.seed' is not searched: the best seed would be the luckiest one"),
            ("train", {"epochs": 3}, "'train.epochs' is not searched: set search.epochs"),
            ("train", {"precision": "fp16"}, "'train.precision' is not searched"),
            ("train", {"workers": 2}, "'train.workers' is no training key"),
            ("images", {"cache": "none"}, "'images.cache' is no training key"),
        ],
    )
    def test_a_whole_section_may_not_contain_them(self, section: str, choice: dict[str, Any], part: str) -> None:
        for choices in ([choice], {"mine": choice}):
            with pytest.raises(ConfigError, match="1 mistake") as caught:
                make({"space": {section: {"choices": choices}}})
            assert part in str(caught.value)

    def test_one_key_under_two_names_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"'train\.lr' occurs twice"):
            make({"space": {"lr": {"low": 0, "high": 1}, "train.lr": {"low": 0, "high": 1}}})

    def test_the_keys_of_a_head_exist(self) -> None:
        assert set(searchable_keys()) >= HEAD_KEYS


@pytest.mark.parametrize(
    ("dimension", "part"),
    [
        ({}, "either low and high, or choices"),
        ({"low": 1}, "either low and high, or choices"),
        ({"low": 0, "high": 1, "choices": [1]}, "either low and high, or choices"),
        ({"low": 2, "high": 1}, "low must lie below high"),
        ({"low": 0, "high": 1, "log": True}, "log range needs low above 0"),
        ({"choices": []}, "at least one value"),
        ({"choices": [1], "log": True}, "neither low"),
        ({"lo": 0, "high": 1}, "did you mean 'low'?"),
        ([1, 4], "write a range as {low: 1, high: 4}, or values as {choices: [1, 4]}"),
        (1, "write a range as"),
    ],
)
def test_a_wrong_dimension_is_refused(dimension: Any, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make({"space": {"lr": dimension}})
    assert part in str(caught.value)


class TestParameters:
    def test_the_default_space_is_the_asymmetric_loss(self) -> None:
        assert names(Config()) == ["loss.gamma_neg", "loss.gamma_pos", "loss.clip"]

    def test_each_bucket_or_label_has_its_own_parameter(self) -> None:
        space = {"loss.clip": {"low": 0, "high": 0.1}, "lr": {"low": 1e-5, "high": 1e-3}}
        assert names(make({"space": space, "share": "bucket"})) == [
            "loss.clip[rare]",
            "loss.clip[middle]",
            "loss.clip[frequent]",
            "train.lr",
        ]
        assert names(make({"space": space, "share": "label"})) == [*(f"loss.clip[{x}]" for x in LABELS), "train.lr"]

    def test_buckets_go_by_the_number_of_positives(self) -> None:
        assert frequency_buckets(LABELS, POSITIVES) == {"rare": ("b", "d"), "middle": ("a", "c"), "frequent": ("e",)}
        assert frequency_buckets(("x", "y"), (9, 1)) == {"rare": ("y",), "frequent": ("x",)}
        assert frequency_buckets(("x",), (9,)) == {"rare": ("x",)}

    @pytest.mark.parametrize(
        ("name", "dimension", "part"),
        [
            ("loss.clip", {"low": 0, "high": 1.5}, "search.space.loss.clip=1.5"),
            ("loss.name", {"choices": ["asl", "asll"]}, "search.space.loss.name=asll"),
            ("hidden_dim", {"low": 8, "high": 64.5}, "integers"),
            ("hidden_dim", {"choices": [16, 18]}, "divisible by heads"),
        ],
    )
    def test_a_bound_must_be_valid_for_its_key(self, name: str, dimension: dict[str, Any], part: str) -> None:
        with pytest.raises(ConfigError) as caught:
            names(make({"space": {name: dimension}}))
        assert part in str(caught.value)

    def test_head_trials_support_losses_and_heads_only(self) -> None:
        space = {"loss.clip": {"low": 0, "high": 0.1}, "dropout": {"low": 0, "high": 0.5}}
        assert len(names(make({"space": space, "proxy": "head"}))) == 2
        for other in ("lr", "model.backbone", "images.size"):
            with pytest.raises(ConfigError, match=r"search\.proxy=head cannot compare"):
                names(make({"space": {other: {"choices": [1]}}, "proxy": "head"}))


class TestConfigs:
    def test_values_reach_their_keys_and_nothing_else_changes(self) -> None:
        space = {
            "loss.gamma_neg": {"low": 0, "high": 6},
            "loss.clip": {"low": 0, "high": 0.2},
            "hidden_dim": {"low": 64, "high": 256, "step": 64},
            "augment": {"choices": {"none": {"train": []}, "flip": {"train": [{"HorizontalFlip": {"p": 0.5}}]}}},
        }
        config = make({"space": space, "share": "bucket"}, train={"lr": 0.5}, loss={"gamma_pos": 1.0})
        parameters = parameters_of(config, LABELS, POSITIVES)
        values = {parameter.name: parameter.dimension.high for parameter in parameters} | {"augment": "flip"}
        values |= {"loss.gamma_neg[rare]": 1.23456789, "model.hidden_dim": 128}
        made = config_with(config, parameters, values, source="trial 0")
        assert made.loss.gamma_neg == {"a": 6.0, "b": 1.235, "c": 6.0, "d": 1.235, "e": 6.0}
        assert made.loss.clip == dict.fromkeys(LABELS, 0.2)
        assert made.augment.train == [{"HorizontalFlip": {"p": 0.5}}]
        assert made.model.hidden_dim == 128
        assert (made.train.lr, made.loss.gamma_pos) == (0.5, 1.0)
        assert made.search == config.search

    def test_a_whole_section_keeps_the_keys_that_no_trial_changes(self) -> None:
        own = {"epochs": 3, "seed": 7, "workers": 1, "batch_size": 8, "lr": 0.5}
        config = make({"space": {"train": {"choices": {"fast": {"lr": 1.0, "batch_size": 8}}}}}, train=own)
        made = config_with(config, parameters_of(config, LABELS, POSITIVES), {"train": "fast"}, source="trial 0")
        assert (made.train.epochs, made.train.seed, made.train.workers) == (3, 7, 1)
        assert (made.train.batch_size, made.train.lr) == (8, 1.0)

    def test_the_written_diff_gives_the_same_config(self) -> None:
        space = {"loss.gamma_neg": {"low": 0, "high": 6}, "augment": {"choices": [{"train": []}]}}
        config = make({"space": space, "share": "label"}, images={"size": 64})
        parameters = parameters_of(config, LABELS, POSITIVES)
        values = {f"loss.gamma_neg[{label}]": float(place) for place, label in enumerate(LABELS)}
        values |= {"augment": '{"train": []}'}  # type: ignore[dict-item]
        diff = yaml.safe_load(diff_text(diff_of(parameters, values)))
        data = config.model_dump(mode="json", exclude_unset=True)
        again = check_config({**data, **diff}, source="best.yaml")
        assert again == config_with(config, parameters, values, source="trial")

    def test_values_that_do_not_fit_together_name_the_trial(self) -> None:
        config = make({"space": {"hidden_dim": {"low": 16, "high": 64}}}, model={"hidden_dim": 16})
        parameters = parameters_of(config, LABELS, POSITIVES)
        with pytest.raises(ConfigError, match="trial 7"):
            config_with(config, parameters, {"model.hidden_dim": 17}, source="trial 7")

    @given(st.floats(0, 0.66666))
    @example(0.66666)
    def test_rounding_stays_inside_the_range(self, value: float) -> None:
        config = make({"space": {"loss.clip": {"low": 0.0, "high": 0.66666}}})
        diff = diff_of(parameters_of(config, LABELS, POSITIVES), {"loss.clip": value})
        assert 0 <= diff["loss.clip"] <= 0.66666
        assert diff["loss.clip"] == pytest.approx(value, rel=1e-3)


class TestOwnValues:
    def test_they_give_the_config_itself(self) -> None:
        space = {
            "loss.gamma_neg": {"low": 0, "high": 6},
            "lr": {"low": 1e-5, "high": 1e-1, "log": True},
            "augment": {"choices": [{"train": []}, {"train": [{"HorizontalFlip": {"p": 0.5}}]}]},
            "model.backbone": {"choices": ["resnet18", "resnet50"]},
            "query_groups": {"choices": [None, 2]},
        }
        config = make({"space": space}, augment={"train": []}, loss={"gamma_neg": 3.5})
        parameters = parameters_of(config, LABELS, POSITIVES)
        values, outside = own_values(config, parameters)
        assert outside == []
        assert config_with(config, parameters, values, source="own") == config

    def test_a_mapping_per_label_is_used_if_the_labels_of_a_bucket_agree(self) -> None:
        gammas = {"a": 1.0, "b": 2.0, "c": 1.0, "d": 2.0, "e": 3.0}
        space = {"loss.gamma_neg": {"low": 0, "high": 6}}
        config = make({"space": space, "share": "bucket"}, loss={"gamma_neg": gammas})
        values, outside = own_values(config, parameters_of(config, LABELS, POSITIVES))
        assert outside == []
        assert values == {
            "loss.gamma_neg[rare]": 2.0,
            "loss.gamma_neg[middle]": 1.0,
            "loss.gamma_neg[frequent]": 3.0,
        }
        shared = make({"space": space}, loss={"gamma_neg": gammas})
        assert len(own_values(shared, parameters_of(shared, LABELS, POSITIVES))[1]) == 1

    @pytest.mark.parametrize(
        ("dimension", "own"),
        [({"low": 0, "high": 1}, 2.0), ({"low": 0, "high": 6, "step": 0.3}, 2.0), ({"choices": [1, 3]}, 2.0)],
    )
    def test_a_value_outside_the_space_is_noted(self, dimension: dict[str, Any], own: float) -> None:
        config = make({"space": {"loss.gamma_neg": dimension}}, loss={"gamma_neg": own})
        values, outside = own_values(config, parameters_of(config, LABELS, POSITIVES))
        assert values == {}
        assert outside == ["the config's own loss.gamma_neg=2.0 lies outside search.space and is not tried"]
