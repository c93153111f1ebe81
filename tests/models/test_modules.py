"""Modules of analysis."""

from __future__ import annotations

import pytest
from torch import nn
from torchvision.models import VisionTransformer

from transferscope.models.layers import classifier_layers, weight_layers
from transferscope.models.modules import find_modules
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

NAMES = ["fixup_resnet_small", "fixup_resnet50", "resnet18", "mnasnet0_5", "mobilenet_v3_small", "densenet121"]


@pytest.mark.parametrize("granularity", ["blocks", "layers"])
@pytest.mark.parametrize("name", NAMES)
def test_every_key_belongs_to_exactly_one_module(name: str, granularity: str) -> None:
    """Concatenated, the modules are a permutation of the state_dict's keys; none is empty."""
    model = build_model(name, 3, seed=0)
    modules = find_modules(model, granularity=granularity)  # type: ignore[arg-type]
    assert sorted(key for keys in modules.values() for key in keys) == sorted(model.state_dict())
    assert all(modules.values())


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_every_convolution_and_linear_layer(name: str) -> None:
    """Each holds its own weight."""
    model = build_model(name, 3, seed=0)
    modules = find_modules(model, granularity="layers")
    assert list(modules) == weight_layers(model)
    assert all(f"{layer}.weight" in keys for layer, keys in modules.items())


def test_modules_of_resnet50_are_the_study_s() -> None:
    """Stem, 16 blocks, classifier; in order of the forward pass."""
    blocks = [f"layer{stage}.{i}" for stage, n in enumerate((3, 4, 6, 3), start=1) for i in range(n)]
    for name in ("fixup_resnet50", "resnet50"):
        assert list(find_modules(build_model(name, 3, seed=0))) == ["stem", *blocks, "fc"]


def test_scalars_of_the_network_go_with_stem_and_classifier() -> None:
    """The stem's bias, and the one before the classifier."""
    modules = find_modules(build_model("fixup_resnet_small", 3))
    assert modules["stem"] == ("bias1", "conv1.weight")
    assert modules["fc"] == ("bias2", "fc.weight", "fc.bias")


def test_scalars_of_a_block_go_with_the_convolution_of_their_number() -> None:
    """The scale with the last one; the shortcut stands alone."""
    layers = find_modules(build_model("fixup_resnet50", 3), granularity="layers")
    block = {name.rpartition(".")[2]: keys for name, keys in layers.items() if name.startswith("layer2.0.")}
    shortened = {name: {key.removeprefix("layer2.0.") for key in keys} for name, keys in block.items()}
    assert shortened == {
        "conv1": {"bias1a", "bias1b", "conv1.weight"},
        "conv2": {"bias2a", "bias2b", "conv2.weight"},
        "conv3": {"bias3a", "bias3b", "scale", "conv3.weight"},
        "downsample": {"downsample.weight"},
    }


def test_norms_go_with_the_layer_before_them() -> None:
    """All five tensors of a BatchNorm."""
    layers = find_modules(build_model("resnet18", 3, seed=0), granularity="layers")
    norm = {f"layer2.0.bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert set(layers["layer2.0.conv2"]) == {"layer2.0.conv2.weight", *norm}
    assert "layer2.0.downsample.1.weight" in layers["layer2.0.downsample.0"]


def test_what_stands_before_all_layers_goes_with_the_first() -> None:
    """The class token and the position embeddings of a transformer; its last norm with the last block."""
    modules = find_modules(VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16))
    assert "class_token" in modules["conv_proj"]
    assert "encoder.pos_embedding" in modules["encoder.layers.encoder_layer_0"]
    assert "encoder.ln.weight" in modules["encoder.layers.encoder_layer_1"]


def test_last_module_of_any_architecture_is_the_classifier() -> None:
    """Under the dotted path of its layer."""
    for name in ("mnasnet0_5", "densenet121", "mobilenet_v3_small"):
        model = build_model(name, 3, seed=0)
        assert list(find_modules(model))[-1] == classifier_layers(model)[0]


def test_a_model_without_layers_is_one_module() -> None:
    """Nothing to divide by."""
    assert find_modules(nn.BatchNorm1d(3, track_running_stats=False)) == {"network": ("weight", "bias")}


@pytest.mark.parametrize("name", ["all", "sum"])
def test_a_module_is_never_called_like_the_totals(name: str) -> None:
    """Tables have rows `all` and `sum` beside those of modules."""
    model = nn.Sequential()
    model.add_module(name, nn.Linear(2, 2))
    assert find_modules(model) == {f"{name} (module)": (f"{name}.weight", f"{name}.bias")}
    with pytest.raises(UserError, match=f"group '{name}': the rows of totals have this name"):
        find_modules(model, groups={name: [f"{name}.*"]})


def test_modules_can_be_configured() -> None:
    """By key, by the start of a key, by glob; in the order given."""
    model = build_model("fixup_resnet_small", 3)
    groups = {"top": ["fc", "bias2", "layer3"], "rest": ["layer[12].*", "conv1.weight", "bias1"]}
    modules = find_modules(model, groups=groups)
    assert list(modules) == ["top", "rest"]
    assert all(key.startswith(("fc.", "layer3.")) or key == "bias2" for key in modules["top"])
    assert sum(map(len, modules.values())) == len(model.state_dict())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["*"], "b": ["fc"]}, "key 'fc.weight' of the model belongs to the modules a and b"),
        ({"a": ["fc", "conv1", "bias*"]}, "no configured module holds the keys layer1.0.bias1a, .* and 39 more"),
        ({"a": ["*"], "b": ["layer9"]}, r"patterns of module 'b' match no key of the model: \['layer9'\]"),
    ],
)
def test_groups_that_are_no_partition_are_refused(groups: dict, message: str) -> None:
    """The error names keys and modules."""
    with pytest.raises(UserError, match=message):
        find_modules(build_model("fixup_resnet_small", 3), groups=groups)


def test_unknown_granularity_is_refused() -> None:
    """With what it may be."""
    with pytest.raises(UserError, match="granularity of modules is 'tensors': must be 'blocks' or 'layers'"):
        find_modules(build_model("fixup_resnet_small", 3), granularity="tensors")  # type: ignore[arg-type]
