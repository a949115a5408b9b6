"""Configs that nobody writes by intention: one short message, in time and without memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import ModelConfig, check_config, load_config, parse_yaml
from pipeline.config.templates import parse_template
from pipeline.errors import ConfigError, listing, printable, shown
from pipeline.metrics.registry import get_metric
from pipeline.model.build import decoder_numbers, require_memory
from pipeline.prediction.tta import parse_views

NESTED = "".join(f"{key}: &{key} [{', '.join(['*' + chr(ord(key) - 1)] * 9)}]\n" for key in "bcdefghi")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x, x, x, x, x, x, x, x]\n" + NESTED, "more than 1,000,000 values"),
        ("a: &a [*a]", "an alias holds itself"),
        ("[" * 100_000, "nested too deeply"),
        ("epochs: 2024-13-45", "does not fit"),
        ("epochs: !!int x", "does not fit"),
        ("epochs: !!timestamp x", "does not fit"),
        ("seed: " + "9" * 5000, "does not fit"),
        ("? [1]\n: 2", "does not fit"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ('id: "\\ud800"', "half a character"),
        ('id: "a\\0b"', "zero byte"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' occurs twice"),
        ("#" * (1 << 22) + "#", "longer than"),
    ],
)
def test_yaml_that_is_no_config_is_refused_in_a_short_message(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - begin < 5


def test_aliases_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: [*a, *a]")["b"] == [{"x": 1}, {"x": 1}]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images.size", 10**6),
        ("images.channels", 10**6),
        ("images.max_pixels", 10**10),
        ("images.mean", [float("nan")] * 3),
        ("model.hidden_dim", 10**8),
        ("model.ffn_dim", 10**8),
        ("model.decoder_layers", 10**8),
        ("model.encoder_layers", 10**8),
        ("model.query_groups", 10**9),
        ("loss.gamma_neg", 1e30),
        ("loss.gamma_pos", {"a": float("inf")}),
        ("loss.gamma", 1e30),
        ("folds.count", 10**6),
        ("folds.seed", 2**63),
        ("train.epochs", 10**12),
        ("train.time_budget", "9" * 5000 + "h"),
        ("train.workers", 10**6),
        ("train.lr", float("inf")),
        ("search.trials", 10**9),
        ("submission.min_labels", 10**12),
    ],
)
def test_numbers_have_bounds(key: str, value: Any) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=key) as caught:
        check_config({section: {name: value}}, source="test")
    assert len(str(caught.value)) < 1000


def test_a_long_value_and_many_mistakes_are_cut() -> None:
    data = {"train": {f"key{number}": 0 for number in range(500)}, "images": {"size": "9" * 10**6}}
    with pytest.raises(ConfigError, match="502 mistakes") as caught:
        check_config(data, source="test")
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("template", ["{id:09999999999d}", "{id:>1234567890}", "{id:.99999f}"])
def test_the_width_of_a_format_has_three_digits(template: str) -> None:
    with pytest.raises(ValueError, match="up to three digits"):
        parse_template(template)


def test_names_with_endless_numbers_are_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown view"):
        parse_views(["size:99999999x99999999"], size=(8, 8))
    for name in ("map@" + "9" * 5000, "f" + "9" * 400 + "_macro"):
        with pytest.raises(ConfigError):
            get_metric(name, ("a", "b"))


def test_a_model_that_does_not_fit_is_refused_before_it_is_built() -> None:
    model = ModelConfig(hidden_dim=65_536, ffn_dim=65_536, decoder_layers=100)
    assert decoder_numbers(model, 10) > 10**12
    with pytest.raises(ConfigError, match="does not fit into memory"):
        require_memory(model, 10, [(224, 224, 3)])
    with pytest.raises(ConfigError, match="does not fit into memory"):
        require_memory(ModelConfig(), 10, [(16_384, 16_384, 1000)])
    require_memory(ModelConfig(), 80, [(448, 448, 3)])


def test_what_commands_a_terminal_is_shown_and_not_sent() -> None:
    assert printable("a\x1b[2J\r\u202e\ud800 猫\té") == "a\\x1b[2J\\r\\u202e\\ud800 猫\té"
    assert len(shown(["x" * 10**6] * 1000)) < 1000
    assert len(listing(["x" * 10**6] * 2)) < 1000
