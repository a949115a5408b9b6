from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.events import ignore
from pipeline.model.backbone import build_backbone
from pipeline.model.build import start_model
from pipeline.model.loading import load_for_labels
from pipeline.model.query2label import PooledClassifier, Query2Label

PER_LABEL = {"query_embed", "classifier.weight", "classifier.bias"}


def build(num_labels: int, seed: int, **options: Any) -> Query2Label:
    torch.manual_seed(seed)
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=16, size=(64, 64))
    return Query2Label(backbone, num_labels=num_labels, **{"hidden_dim": 16, "ffn_dim": 24, **options})


def test_rows_follow_their_label_and_new_labels_stay_fresh() -> None:
    source, target = build(3, seed=0), build(4, seed=1)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    tensors = source.state_dict()
    report = load_for_labels(
        target, tensors, labels=["new", "dog", "cat", "newer"], source_labels=["cat", "cow", "dog"]
    )
    loaded = target.state_dict()
    for name in PER_LABEL:
        assert torch.equal(loaded[name][1], tensors[name][2])
        assert torch.equal(loaded[name][2], tensors[name][0])
        assert torch.equal(loaded[name][[0, 3]], fresh[name][[0, 3]])
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors if name not in PER_LABEL)
    assert set(report.used) == set(tensors)
    assert report.ignored == {}
    assert set(report.missing) == PER_LABEL


def test_equal_labels_load_everything() -> None:
    source, target = build(3, seed=0, query_groups=2), build(3, seed=1, query_groups=2)
    report = load_for_labels(target, source.state_dict(), labels=["a", "b", "c"], source_labels=["a", "b", "c"])
    assert report == (tuple(source.state_dict()), {}, ())
    source, target = source.eval(), target.eval()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(target(images), source(images))


@pytest.mark.parametrize("source_labels", [None, ["x", "y", "z"]])
def test_labels_that_do_not_match_are_reported_with_the_reason(source_labels: list[str] | None) -> None:
    target = build(3, seed=1)
    fresh = target.query_embed.clone()
    report = load_for_labels(target, build(3, seed=0).state_dict(), labels=["a", "b", "c"], source_labels=source_labels)
    assert set(report.ignored) == PER_LABEL == set(report.missing)
    reason = "not known" if source_labels is None else "no label of the same name"
    assert all(reason in why for why in report.ignored.values())
    assert torch.equal(target.query_embed, fresh)


def test_queries_of_other_groups_are_left_out() -> None:
    target = build(4, seed=1, query_groups=2)
    report = load_for_labels(
        target, build(3, seed=0).state_dict(), labels=["a", "b", "c", "d"], source_labels=["a", "b", "c"]
    )
    assert set(report.ignored) == PER_LABEL


def test_other_shapes_and_parts_are_named() -> None:
    source = build(3, seed=0, ffn_dim=32, encoder_layers=2)
    report = load_for_labels(
        build(3, seed=1), source.state_dict(), labels=["a", "b", "c"], source_labels=["a", "b", "c"]
    )
    assert "shape (32, 16), the model has (24, 16)" in report.ignored["decoder.layers.0.feed_forward.0.weight"]
    assert "no such part" in report.ignored["encoder.layers.1.norm1.weight"]
    assert "decoder.layers.0.feed_forward.0.weight" in report.missing
    assert "ignored encoder.layers.1.norm1.weight: the model has no such part" in str(report)


def test_a_pooled_classifier_gives_its_backbone_and_rows() -> None:
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=16, size=(64, 64))
    source = PooledClassifier(backbone, num_labels=2)
    target = build(2, seed=1)
    report = load_for_labels(target, source.state_dict(), labels=["a", "b"], source_labels=["b", "a"])
    assert torch.equal(target.state_dict()["classifier.bias"], source.classifier.bias.flip(0))
    assert "rows of shape (192,), the model has (16,)" in report.ignored["classifier.weight"]
    assert "query_embed" in report.missing


def test_a_checkpoint_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match="not one tensor"):
        load_for_labels(build(3, seed=0), {"fc.weight": torch.zeros(2)}, labels=["a"], source_labels=None)


class TestQueryInit:
    def start(self, path: Path) -> None:
        config = ModelConfig(backbone="test_resnet", feature_stride=16, pretrained=False, query_init=str(path))
        start_model(config, ImagesConfig(size=64), labels=["a", "b", "c"], listen=ignore)

    @pytest.mark.parametrize(
        "values", [np.zeros(3), np.full((3, 512), np.nan), np.array([["a", "b"]]), np.array([{}], dtype=object)]
    )
    def test_refuses_anything_but_a_table_of_numbers(self, tmp_path: Path, values: np.ndarray[Any, Any]) -> None:
        np.save(tmp_path / "names.npy", values, allow_pickle=True)
        with pytest.raises(ConfigError, match=r"model\.query_init: "):
            self.start(tmp_path / "names.npy")

    def test_executes_nothing(self, tmp_path: Path) -> None:
        class Touch:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "touched",))

        np.save(tmp_path / "names.npy", np.array([Touch()], dtype=object), allow_pickle=True)
        with pytest.raises(ConfigError):
            self.start(tmp_path / "names.npy")
        assert not (tmp_path / "touched").exists()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.npy is not readable"):
            self.start(tmp_path / "none.npy")
