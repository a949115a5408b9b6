"""`model.backbone_weights`: the backbone starts from files that timm, a model hub or a run wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import ConfigError, RunError
from pipeline.events import Event, Note
from pipeline.model.backbone import Backbone, build_backbone
from pipeline.model.backbone_weights import load_backbone_weights
from pipeline.model.build import backbone_of, build_normalizer, load_model, start_model
from pipeline.model.timm_registry import current_name
from pipeline.model.weights import model_facts, save_tensors

State = dict[str, Tensor]
STATISTICS = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def published(name: str, **options: Any) -> State:
    """A state dict of a timm network with its classifier, with small random values."""
    with torch.device("meta"):  # timm's own initial values cost more than the tests
        state = timm.create_model(name, **options).state_dict()
    return {key: (torch.rand(tensor.shape) / 50).to(tensor.dtype) for key, tensor in state.items()}


@pytest.fixture
def resnet(tmp_path: Path) -> tuple[State, Path]:
    """The tensors of a tiny network, and a file with them."""
    state = published("test_resnet")
    save_file(state, tmp_path / "weights.safetensors")
    return state, tmp_path / "weights.safetensors"


def backbone(name: str = "test_resnet", *, stride: int = 32, size: int = 64, channels: int = 3) -> Backbone:
    return build_backbone(name, pretrained=False, feature_stride=stride, channels=channels, size=(size, size))


def same(network: Backbone, state: State) -> bool:
    """Whether every tensor of the network is the file's."""
    own = network.body.state_dict()
    return bool(own) and all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def load(network: Backbone, path: Path | str) -> list[str]:
    """Load the weights at `path`; returns the notes."""
    events: list[Event] = []
    load_backbone_weights(network, str(path), listen=events.append)
    return [event.sentence for event in events if isinstance(event, Note)]


def start(settings: ModelConfig, images: ImagesConfig) -> tuple[nn.Module, list[str]]:
    """A network for the labels a and b, and the notes."""
    events: list[Event] = []
    model = start_model(settings, images, labels=["a", "b"], listen=events.append)
    return model, [event.sentence for event in events if isinstance(event, Note)]


def config(**settings: Any) -> ModelConfig:
    small = {"backbone": "test_resnet", "hidden_dim": 16, "heads": 2, "ffn_dim": 16}
    return ModelConfig.model_validate(small | settings)


class TestNetworks:
    @pytest.mark.parametrize(
        ("name", "stride", "size"),
        [
            ("resnet18", 16, 64),
            ("test_convnext", 32, 64),
            ("convnextv2_atto", 32, 64),
            ("test_efficientnet", 32, 64),
            ("test_vit", 16, 160),
            ("test_maxvit", 32, 160),
            ("eva02_tiny_patch14_224", 14, 56),
            ("vit_small_patch14_dinov2", 14, 56),
            ("vit_small_patch16_dinov3", 16, 64),
            ("swinv2_tiny_window8_256", 32, 64),
        ],
    )
    def test_every_tensor_up_to_the_stage_is_the_files(self, name: str, stride: int, size: int, tmp_path: Path) -> None:
        state = published(name)
        torch.save(state, tmp_path / "x.pth")
        network = backbone(name, stride=stride, size=size)
        notes = load(network, tmp_path / "x.pth")
        assert same(network, state)
        count = sum("num_batches_tracked" not in key for key in network.body.state_dict())
        assert f"{count} of {count} backbone tensors used" in notes[0]
        assert not any("missing" in note or "no such part" in note for note in notes)

    def test_the_original_names_of_a_network_are_translated(self, tmp_path: Path) -> None:
        """Those of ConvNeXt's authors."""
        state = published("test_convnext")
        original = {
            key.replace("stem.", "downsample_layers.0.").replace(".blocks", "").replace("conv_dw", "dwconv")
            .replace("mlp.fc", "pwconv").replace("head.norm", "norm").replace("head.fc", "head"): tensor
            for key, tensor in state.items()
            if ".downsample." not in key
        }  # fmt: skip
        original |= {
            f"downsample_layers.{key[7]}.{key.split('downsample.')[1]}": tensor
            for key, tensor in state.items()
            if ".downsample." in key
        }
        assert not original.keys() & state.keys()
        torch.save({"model": original}, tmp_path / "x.pth")
        network = backbone("test_convnext")
        load(network, tmp_path / "x.pth")
        assert same(network, state)

    @pytest.mark.filterwarnings("ignore::UserWarning")  # of the resampling in timm
    @pytest.mark.parametrize(
        ("name", "stride", "size", "table", "other"),
        [
            ("test_vit", 16, 160, "pos_embed", {"img_size": 96}),
            (
                *("swin_tiny_patch4_window7_224", 32, 64, "layers.0.blocks.0.attn.relative_position_bias_table"),
                {"window_size": 4, "img_size": 128},
            ),
        ],
    )
    def test_what_depends_on_the_image_size_is_resampled(
        self, name: str, stride: int, size: int, table: str, other: dict[str, Any], tmp_path: Path
    ) -> None:
        state = published(name, **other)
        torch.save(state, tmp_path / "x.pth")
        network = backbone(name, stride=stride, size=size)
        before = network.body.state_dict()[table].clone()
        notes = load(network, tmp_path / "x.pth")
        assert not any("missing" in note or "shape" in note for note in notes)
        assert state[table].shape != before.shape
        assert not torch.equal(network.body.state_dict()[table], before)
        assert network(torch.zeros(1, 3, size, size)).isfinite().all()

    @pytest.mark.parametrize("channels", [1, 4])
    def test_the_first_layer_takes_other_channels_as_timm_does_it(
        self, channels: int, resnet: tuple[State, Path]
    ) -> None:
        state, path = resnet
        network = backbone(channels=channels)
        notes = load(network, path)
        overlay = {"state_dict": state, "num_classes": 1000}
        timms: Any = timm.create_model(
            "test_resnet", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=channels, num_classes=0
        )
        assert same(network, timms.state_dict())
        assert f"conv1.0.weight adapted from 3 to {channels} channels" in notes[1]

    def test_a_first_layer_for_four_channels_serves_three(self, tmp_path: Path) -> None:
        state = published("test_resnet", in_chans=4)
        torch.save(state, tmp_path / "x.pth")
        network = backbone()
        load(network, tmp_path / "x.pth")
        weight = network.body.state_dict()["conv1.0.weight"]
        torch.testing.assert_close(weight, state["conv1.0.weight"][:, :3] * 4 / 3)

    def test_a_first_layer_that_cannot_be_adapted_stays_fresh(self, tmp_path: Path) -> None:
        """Its pixels are folded into channels; timm leaves it out too."""
        torch.save(published("tresnet_m"), tmp_path / "x.pth")
        notes = load(backbone("tresnet_m", channels=4), tmp_path / "x.pth")
        assert notes[-1].endswith("missing, left at random values: body.conv1.conv.weight")


Wrap = Callable[[State], dict[str, Any]]


class TestFiles:
    @pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.pt", "x.bin", "x.pth.tar"])
    def test_each_kind_is_read(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path starts from the working folder, or with "~" from the home folder."""
        state = published("test_resnet")
        (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for location in (name, f"~/{name}", str(tmp_path / name)):
            network = backbone()
            load(network, location)
            assert same(network, state)

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
            lambda state: {"model": state, "optimizer": {"state": {}}},
            lambda state: {"model_state_dict": state},
            lambda state: {"state_dict_ema": state, "state_dict": {key: tensor * 0 for key, tensor in state.items()}},
            lambda state: {"model": {"state_dict": state}},
            lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
            lambda state: {"state_dict": {f"module._orig_mod.{key}": tensor for key, tensor in state.items()}},
            lambda state: {f"backbone.{key}": tensor for key, tensor in state.items()} | {"head.weight": torch.ones(3)},
            lambda state: {f"encoder.{key}": tensor for key, tensor in state.items()},
            lambda state: {f"module.backbone.{key}": tensor.half() for key, tensor in state.items()},
        ],
    )
    def test_wrappers_and_prefixes_are_taken_off(self, wrap: Wrap, tmp_path: Path) -> None:
        state = {key: tensor.half().to(tensor.dtype) for key, tensor in published("test_resnet").items()}
        torch.save(wrap(state), tmp_path / "x.pth")
        network = backbone()
        notes = load(network, tmp_path / "x.pth")
        assert same(network, state)
        assert ("ema" in str(wrap(state).keys())) == (", from state_dict_ema" in notes[0])

    def test_the_report_groups_what_is_ignored_by_reason(self, tmp_path: Path) -> None:
        state = published("test_efficientnet")
        others = {f"decoder.{number}": torch.ones(2) for number in range(9)}
        torch.save({f"backbone.{key}": tensor for key, tensor in state.items()} | others, tmp_path / "x.pth")
        notes = load(backbone("test_efficientnet"), tmp_path / "x.pth")
        assert all(note.startswith(f"model.backbone_weights={tmp_path / 'x.pth'}: ") for note in notes)
        text = "\n".join(notes)
        assert ": the classifier of its pretraining" in text
        assert "and 3 more: comes after the stage of model.feature_stride" in text
        assert "ignored decoder.0, decoder.1, decoder.2 and 6 more: not a part of the backbone" in text

    def test_a_run_gives_its_backbone_and_its_pixel_statistics(self, tmp_path: Path) -> None:
        images = ImagesConfig(size=64, **STATISTICS)
        model, _ = start(config(pretrained=False), images)
        facts = model_facts(config(), images, ("a", "b"), backbone_of(model))
        save_tensors(tmp_path / "weights.safetensors", model.state_dict(), facts)
        network = backbone()
        notes = load(network, tmp_path / "weights.safetensors")
        assert same(network, backbone_of(model).body.state_dict())
        assert (list(network.mean), list(network.std)) == (STATISTICS["mean"], STATISTICS["std"])
        assert "not a part of the backbone" in notes[-1]
        with pytest.raises(ConfigError, match=r"model.backbone=resnet18\n +got: +weights of test_resnet"):
            load(backbone("resnet18"), tmp_path / "weights.safetensors")

    def test_nothing_is_executed(self, tmp_path: Path) -> None:
        class Touch:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "touched",)

        torch.save({"state_dict": published("test_resnet"), "extra": Touch()}, tmp_path / "x.pth")
        with pytest.raises(ConfigError, match=r"x\.pth: not readable(.|\n)*remedy: .*safetensors"):
            load(backbone(), tmp_path / "x.pth")
        assert not (tmp_path / "touched").exists()


@pytest.fixture
def hub(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder like those of a model hub."""

    def make(config: object = None, weights: str | None = "model.safetensors") -> Path:
        folder = tmp_path / "hub"
        folder.mkdir()
        default = {"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {"tag": "x", **STATISTICS}}
        (folder / "config.json").write_text(json.dumps(config or default))
        if weights is not None:
            (save_file if "safetensors" in weights else torch.save)(published("test_resnet"), folder / weights)
        return folder

    return make


class TestHubFolders:
    @pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
    def test_weights_and_statistics_are_taken(self, weights: str, hub: Callable[..., Path]) -> None:
        network = backbone()
        notes = load(network, hub(weights=weights))
        assert "backbone tensors used" in notes[0]
        assert (list(network.mean), list(network.std)) == (STATISTICS["mean"], STATISTICS["std"])

    def test_an_old_config_without_sections(self, hub: Callable[..., Path]) -> None:
        network = backbone()
        load(network, hub({"architecture": "test_resnet", **STATISTICS}))
        assert list(network.mean) == STATISTICS["mean"]

    def test_the_architecture_must_be_the_configs(self, hub: Callable[..., Path]) -> None:
        with pytest.raises(ConfigError, match=r"model.backbone=resnet18\n +got: +weights of test_resnet"):
            load(backbone("resnet18"), hub())

    @pytest.mark.parametrize(
        "config",
        [
            {"architectures": ["ResNetForImageClassification"]},
            {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.5], "std": [0.0]}},
            {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}},
            {"architecture": "test_resnet", "pretrained_cfg": "x"},
            ["test_resnet"],
        ],
    )
    def test_another_config_is_refused(self, config: object, hub: Callable[..., Path]) -> None:
        with pytest.raises(ConfigError, match=r"no folder of a timm network(.|\n)*model.safetensors"):
            load(backbone(), hub(config))

    def test_a_folder_without_config_is_refused(self, resnet: tuple[State, Path]) -> None:
        with pytest.raises(ConfigError, match=r"no folder of a timm network(.|\n)*files: weights.safetensors"):
            load(backbone(), resnet[1].parent)

    def test_a_folder_without_weights_or_with_parts_is_refused(self, hub: Callable[..., Path]) -> None:
        folder = hub(weights=None)
        with pytest.raises(ConfigError, match=r"no weights file model\.safetensors or (.|\n)*the weights file itself"):
            load(backbone(), folder)
        (folder / "model.safetensors.index.json").write_text("{}")
        with pytest.raises(ConfigError, match=r"index\.json\n.*several parts, as one model\.safetensors"):
            load(backbone(), folder)


class TestMistakes:
    def test_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "x.npz").write_bytes(b"")
        with pytest.raises(ConfigError, match=r"there is no .*none\.pth\n(.|\n)*working folder"):
            load(backbone(), "none.pth")
        with pytest.raises(ConfigError, match=r"x\.npz is no weights file\n.*\.safetensors, \.pth"):
            load(backbone(), tmp_path / "x.npz")

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
    def test_a_broken_file(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(b"neither")
        with pytest.raises(ConfigError, match=rf"{name}.* not readable"):
            load(backbone(), tmp_path / name)

    def test_a_file_without_tensors(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3, "x": torch.ones(2, device="meta")}, tmp_path / "x.pth")
        with pytest.raises(ConfigError, match="holds no tensors"):
            load(backbone(), tmp_path / "x.pth")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
    def test_numbers_that_are_not_finite(self, value: float, resnet: tuple[State, Path], tmp_path: Path) -> None:
        state = {key: tensor.double() for key, tensor in resnet[0].items()}
        state["conv1.0.weight"][0, 0, 0, 0] = value
        torch.save(state, tmp_path / "x.pth")
        network = backbone()
        before = {key: tensor.clone() for key, tensor in network.body.state_dict().items()}
        with pytest.raises(ConfigError, match=r"not finite numbers\n +got: +in conv1\.0\.weight"):
            load(network, tmp_path / "x.pth")
        assert same(network, before)

    @pytest.mark.parametrize(
        ("own", "theirs"),
        [
            ("resnet34", "resnet18"),  # half of the tensors fit, the others are missing
            ("resnet18", "resnet34"),  # all of the backbone is there, but the file has more
            ("resnet18", "vit_tiny_patch16_224"),  # nothing fits
        ],
    )
    def test_the_file_of_another_network_is_refused_with_its_name(self, own: str, theirs: str, tmp_path: Path) -> None:
        torch.save(published(theirs), tmp_path / "x.pth")
        network = backbone(own)
        before = {key: tensor.clone() for key, tensor in network.body.state_dict().items()}
        with pytest.raises(ConfigError, match=f"does not fit backbone {own}; did you mean model.backbone={theirs}"):
            load(network, tmp_path / "x.pth")
        assert same(network, before)

    def test_one_other_shape_is_enough_and_the_file_may_have_the_networks_name(self, tmp_path: Path) -> None:
        torch.save(published("test_convnext2"), tmp_path / "test_convnext2.pth")
        with pytest.raises(ConfigError, match=r"did you mean model.backbone=test_convnext2\?"):
            load(backbone("test_convnext3"), tmp_path / "test_convnext2.pth")

    def test_names_that_no_network_has_are_shown_with_shapes(self, tmp_path: Path) -> None:
        torch.save({"a.weight": torch.ones(2, 3)}, tmp_path / "x.pth")
        message = r"expected: \d+ tensors such as conv1.0.weight \(.*\n +got: +0 of them, and a\.weight \(2, 3\)"
        with pytest.raises(ConfigError, match=message):
            load(backbone(), tmp_path / "x.pth")

    def test_less_than_half_a_backbone_is_refused(self, resnet: tuple[State, Path], tmp_path: Path) -> None:
        torch.save(dict(list(resnet[0].items())[:24]), tmp_path / "x.pth")
        with pytest.raises(ConfigError, match="does not fit backbone test_resnet\n"):
            load(backbone(), tmp_path / "x.pth")

    def test_a_shallower_backbone_fills_its_part_and_the_rest_is_named(self, tmp_path: Path) -> None:
        state = {f"backbone.body.{key}": tensor for key, tensor in backbone(stride=16).body.state_dict().items()}
        save_file(state, tmp_path / "x.safetensors")
        notes = load(backbone(), tmp_path / "x.safetensors")
        assert "missing, left at random values: layer4.0.conv1.weight" in notes[-1]


class TestStart:
    def test_nothing_is_downloaded_and_notes_are_returned(
        self, resnet: tuple[State, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("the network was asked")

        monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
        settings = config(pretrained=True, backbone_weights=str(resnet[1]))
        model, notes = start(settings, ImagesConfig(size=64))
        assert same(backbone_of(model), resnet[0])
        assert "backbone tensors used" in notes[0]

    def test_the_configs_mean_and_std_win(self, hub: Callable[..., Path]) -> None:
        settings = config(backbone_weights=str(hub()))
        for given, mean in ((None, 0.1), (0.7, 0.7)):
            images = ImagesConfig(size=64, mean=given and [given] * 3, std=given and [0.5] * 3)
            normalizer = build_normalizer(images, start(settings, images)[0])
            assert -float(normalizer.shift[0, 0] / normalizer.scale[0, 0] / 255) == pytest.approx(mean)

    def test_a_finished_model_needs_no_other_file_and_keeps_its_statistics(
        self, hub: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder, images = hub(), ImagesConfig(size=64)
        settings = config(backbone_weights=str(folder))
        model, _ = start(settings, images)
        facts = model_facts(settings, images, ("a", "b"), backbone_of(model))
        save_tensors(tmp_path / "w.safetensors", model.state_dict(), facts)
        folder.rename(tmp_path / "gone")
        trained = load_model(tmp_path / "w.safetensors", device=torch.device("cpu"))
        assert torch.equal(trained.normalizer.get_buffer("shift"), build_normalizer(images, model).shift)
        for broken in ({"mean": [0.5], "std": [0]}, {"mean": "x", "std": "y"}, [0.5]):
            save_tensors(tmp_path / "w.safetensors", model.state_dict(), facts | {"pixels": broken})
            with pytest.raises(RunError, match="describe no model"):
                load_model(tmp_path / "w.safetensors", device=torch.device("cpu"))

    def test_timms_file_as_model_weights_names_the_right_key(self, resnet: tuple[State, Path]) -> None:
        torch.save(resnet[0], resnet[1].with_suffix(".pth"))
        for path in (resnet[1], resnet[1].with_suffix(".pth")):
            with pytest.raises((ConfigError, RunError), match=r"remedy: .*model\.backbone_weights"):
                start(config(pretrained=False, weights=str(path)), ImagesConfig(size=64))

    def test_a_folder_as_a_backbones_name_names_the_right_key(self) -> None:
        with pytest.raises(ConfigError, match=r"remedy: .*model\.backbone_weights"):
            backbone("local-dir:/somewhere")


class TestRenamedNetworks:
    def test_an_old_name_is_followed_with_a_note(self) -> None:
        settings = config(backbone="ssl_resnet18", pretrained=False)
        model, notes = start(settings, ImagesConfig(size=64))
        assert backbone_of(model).name == "resnet18.fb_ssl_yfcc100m_ft_in1k"
        assert "ssl_resnet18 is an old name" in notes[0]

    def test_every_old_name_leads_to_a_network(self) -> None:
        known, old = set(timm.list_models()), timm.models._registry._deprecated_models
        assert len(old) > 100
        assert all(current_name(name).split(".")[0] in known for name, current in old.items() if current)

    def test_a_tag_wins_and_other_names_stay(self) -> None:
        assert current_name("convnext_tiny_in22ft1k.fb_in1k") == "convnext_tiny.fb_in1k"
        assert current_name("resnet50.a1_in1k") == "resnet50.a1_in1k"


class TestWithoutNetwork:
    def test_the_remedy_names_a_file_that_works(
        self, resnet: tuple[State, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        images = ImagesConfig(size=64)
        with pytest.raises(ConfigError) as raised:
            start(config(), images)
        place = tmp_path / "cache/models--timm--test_resnet.r160_in1k"
        for part in ("model.safetensors", "timm/test_resnet.r160_in1k", str(place), "model.backbone_weights"):
            assert part in raised.value.remedy
        brought = tmp_path / "model.safetensors"
        save_file(resnet[0], brought)
        model, _ = start(config(backbone_weights=str(brought)), images)
        assert same(backbone_of(model), resnet[0])

    def test_a_network_without_published_weights(self) -> None:
        with pytest.raises(ConfigError, match=r"remedy: .*no weights for this network.*model\.pretrained=false"):
            build_backbone("seresnet18", pretrained=True, feature_stride=32, size=(64, 64))
