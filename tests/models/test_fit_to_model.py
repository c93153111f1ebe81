"""Weights under other names than the architecture has."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, check_checkpoint_file, load_checkpoint
from transferscope.models.fit_to_model import fit_to_model
from transferscope.models.initialisation import initialise
from transferscope.models.series import CheckpointSeries
from transferscope.models.torch_file import _ArchiveStorage
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return torchvision.models.resnet18(num_classes=7).eval()


@pytest.fixture(scope="module")
def weights(network: nn.Module) -> State:
    return {key: value + 1 if "num_batches" in key else value for key, value in network.state_dict().items()}


def under(prefix: str, state: State, offset: int = 0) -> State:
    return {prefix + key: value + offset for key, value in state.items()}


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if "num_batches_tracked" not in key}


WAYS: dict[str, tuple[Callable[[State], State], str]] = {
    "below the loss": (
        lambda s: under("net.", s) | {"criterion.weight": torch.ones(7), "train_acc.total": torch.tensor(1)},
        "took the tensors below 'net.' and left out 2: criterion.weight, train_acc.total",
    ),
    "deeper": (
        lambda s: under("model.encoder.trunk.", s) | {"projector.0.weight": torch.ones(3)},
        "took the tensors below 'model.encoder.trunk.' and left out 1: projector.0.weight",
    ),
    "an unknown prefix": (lambda s: under("my_resnet.", s), "took the tensors below 'my_resnet.'"),
    "a teacher beside": (
        lambda s: under("teacher.", s, 1) | under("student.", s),
        "prefix takes other weights that fit: teacher.",
    ),
    "averages beside": (
        lambda s: under("ema_net.", s, 1) | under("net.", s),
        "prefix takes other weights that fit: ema_net.",
    ),
    "averages below": (
        lambda s: s | under("ema.", s, 1),
        "left out other weights that fit; the option prefix takes them: ema.",
    ),
    "a few names wrapped": (
        lambda s: {f"module.{key}" if number % 2 else key: value for number, (key, value) in enumerate(s.items())},
        "renamed 61 tensors, as module.",
    ),
    "a part wrapped": (
        lambda s: {key.replace("layer1.", "layer1.module."): value for key, value in s.items()},
        "renamed 24 tensors, as layer1.module.0.conv1.weight to layer1.0.conv1.weight",
    ),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_the_networks_own_names_are_found(network: nn.Module, weights: State, way: str) -> None:
    """Below any prefix, beside a loss, metrics and other networks; the sentence says what was taken or renamed."""
    change, sentence = WAYS[way]
    fitted, notes = fit_to_model(change(weights), network)
    assert sentence in "; ".join(notes)
    assert list(fitted) == list(weights)
    assert all(torch.equal(fitted[key], value) for key, value in weights.items())


def test_weights_that_fit_stay_as_they_are(network: nn.Module, weights: State) -> None:
    """The same tensors in the same order, without a word."""
    reversed_order = dict(reversed(weights.items()))
    fitted, notes = fit_to_model(reversed_order, network)
    assert (list(fitted), notes) == (list(reversed_order), [])
    assert all(fitted[key] is value for key, value in weights.items())


def test_files_of_old_torch_load(network: nn.Module, weights: State) -> None:
    """Without the counters that torch 0.4.1 brought, which become 0, as in torch's own strict loading."""
    fitted, notes = fit_to_model(without_counters(weights), network)
    reference = torchvision.models.resnet18(num_classes=7)
    reference.load_state_dict(without_counters(weights), strict=True)
    assert list(fitted) == list(weights)
    assert all(torch.equal(fitted[key], value) for key, value in reference.state_dict().items())
    assert notes == ["set 20 counters num_batches_tracked, which the file lacks, to 0"]
    built = Checkpoint(without_counters(weights), CheckpointMetadata("resnet18")).build()
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(built(image), network(image))


def test_missing_counters_have_values_beside_a_network_without() -> None:
    """They are numbers on the device of the file, so the weights that `fitted` gives can be loaded."""
    state = without_counters(torchvision.models.shufflenet_v2_x0_5(num_classes=2).state_dict())
    checkpoint = Checkpoint(state, CheckpointMetadata("shufflenet_v2_x0_5")).fitted()
    assert {key for key in checkpoint.state_dict if key not in state}
    assert not any(tensor.is_meta for tensor in checkpoint.state_dict.values())
    built = checkpoint.build().state_dict()
    assert all(int(built[key]) == 0 for key in built if "num_batches_tracked" in key)
    described = Checkpoint({key: tensor.to("meta") for key, tensor in state.items()}, checkpoint.metadata).fitted()
    assert all(tensor.is_meta for tensor in described.state_dict.values())


def test_counters_of_shape_one_are_numbers(network: nn.Module, weights: State) -> None:
    """`num_batches_tracked` of shape (1,), as other programs save it, keeps its number, and a sentence says so."""
    given = {key: value.reshape(1) if "num_batches" in key else value for key, value in weights.items()}
    fitted, notes = fit_to_model(given, network)
    assert notes == ["took 20 counters num_batches_tracked of another shape, which hold one number each"]
    assert all(torch.equal(fitted[key], value) for key, value in weights.items())


def test_counters_that_the_network_does_not_keep_are_left_out() -> None:
    """As where BatchNorm was replaced or frozen."""
    model = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=True), nn.Linear(2, 2))
    del model[0].num_batches_tracked
    model[0].num_batches_tracked = None
    given = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(2, 2)).state_dict()
    fitted, notes = fit_to_model(given, model)
    assert list(fitted) == list(model.state_dict())
    assert notes == ["left out 1 counters num_batches_tracked, which the model does not keep"]


def test_a_prefix_that_the_file_lacks_is_put_before_its_names() -> None:
    """A network may itself have a single part called `model`."""
    network = nn.Sequential()
    network.add_module("model", nn.Linear(2, 2))
    fitted, notes = fit_to_model(nn.Linear(2, 2).state_dict(), network)
    assert list(fitted) == ["model.weight", "model.bias"]
    assert notes == ["put the prefix 'model.', which the model's names have, before all names"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"fc2.weight": torch.zeros(1)}, "unexpected: fc2.weight"),
        (
            lambda s: under("net.", {k: v for k, v in s.items() if k != "layer1.0.conv1.weight"}),
            "missing: layer1.0.conv1.weight$",
        ),
        (
            lambda s: {k: (9 * v).to(torch.int8) if v.ndim > 1 else v for k, v in s.items()},
            r"conv1.weight \(int8 for float32\)",
        ),
        (lambda s: {k: v > 0 if k == "fc.bias" else v for k, v in s.items()}, r"fc.bias \(bool for float32\)"),
        (lambda s: s | {"fc.bias": s["fc.bias"] + 0j}, r"fc.bias \(complex64 for float32\)"),
    ],
)
def test_what_does_not_fit_is_still_refused(weights: State, change: Callable[[State], State], message: str) -> None:
    """Surplus and missing weights, and numbers that would be taken for others without a word."""
    with pytest.raises(UserError, match=message):
        Checkpoint(change(weights), CheckpointMetadata("resnet18", num_classes=7)).build()


def test_a_larger_network_below_a_prefix_is_refused() -> None:
    """A ResNet-34 has every name of a ResNet-18."""
    larger = under("net.", torchvision.models.resnet34(num_classes=7).state_dict())
    with pytest.raises(UserError, match=r"does not fit resnet18 with 7 classes: unexpected: layer1\.2\.conv1\.weight"):
        Checkpoint(larger, CheckpointMetadata("resnet18", num_classes=7)).build()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_stored_dtype_is_kept(network: nn.Module, weights: State, dtype: torch.dtype) -> None:
    """Whatever is renamed."""
    given = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in under("net.", weights).items()
    }
    fitted, _ = fit_to_model(given | {"loss.weight": torch.zeros(1)}, network)
    assert {value.dtype for value in fitted.values()} == {dtype, torch.int64}


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_official_files_with_auxiliary_classifiers_load(name: str, tmp_path: Path) -> None:
    """Their auxiliary classifiers act in training only; the sentences name the options that torchvision sets."""
    official = torchvision.models.get_model(
        name, weights=None, aux_logits=True, transform_input=True, init_weights=False
    )
    torch.save(official.state_dict(), tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    checkpoint = checkpoint.with_metadata(num_classes=1000)
    fitted = checkpoint.with_metadata(architecture=name).fitted()
    notes = "; ".join(fitted.metadata.extra["notes"])
    assert "left out the auxiliary classifiers" in notes
    assert "model.options.transform_input: true" in notes
    same = checkpoint.with_metadata(architecture=name, model_options={"transform_input": True})
    assert "transform_input" not in "; ".join(same.fitted().metadata.extra["notes"])
    image = torch.rand(2, 3, 96, 96)
    assert torch.equal(same.build()(image), official.eval()(image))
    whole = checkpoint.with_metadata(architecture=name, model_options={"aux_logits": True, "transform_input": True})
    assert torch.equal(whole.build()(image), official(image))


def test_a_file_without_auxiliary_classifiers_names_the_option(weights: State) -> None:
    """Where the model was asked to have them."""
    state = build_model("googlenet", 5, seed=0).state_dict()
    metadata = CheckpointMetadata("googlenet", {"aux_logits": True}, 5)
    with pytest.raises(UserError, match=r"model\.options\.aux_logits: false builds the model without"):
        Checkpoint(state, metadata).build()


def test_names_of_old_torchvision_are_brought_up_to_date() -> None:
    """DenseNets of the first files (`norm.1`) and vision transformers (`linear_1`), in the dtype of the file."""
    densenet = build_model("densenet121", 3, seed=0)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in densenet.state_dict().items()
    }
    assert old.keys() != densenet.state_dict().keys()
    built = Checkpoint(without_counters(old), CheckpointMetadata("densenet121", num_classes=3)).build()
    assert all(torch.equal(value, densenet.state_dict()[key]) for key, value in built.state_dict().items())
    options = {"image_size": 32}
    transformer = build_model("vit_b_32", 3, seed=0, **options)
    renamed = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value.half()
        for key, value in transformer.state_dict().items()
    }
    fitted = Checkpoint(renamed, CheckpointMetadata("vit_b_32", options, 3)).fitted()
    assert fitted.state_dict.keys() == transformer.state_dict().keys()
    assert {value.dtype for value in fitted.state_dict.values()} == {torch.float16}
    assert all(torch.equal(value, transformer.state_dict()[key].half()) for key, value in fitted.state_dict.items())
    assert "brought names of an older version up to date" in fitted.metadata.extra["notes"][0]


def test_networks_whose_layers_ask_for_a_version_load() -> None:
    """MNASNet refuses a state dict without one, which is what files keep."""
    model = build_model("mnasnet0_5", 3, seed=0)
    built = Checkpoint(dict(model.state_dict()), CheckpointMetadata("mnasnet0_5")).build()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in built.state_dict().items())


def test_pre_trained_weights_may_have_another_head(weights: State) -> None:
    """A self-supervised encoder with a head of two layers, beside its momentum encoder and its queue."""
    encoder = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    head = {"fc.0.weight": torch.zeros(2, 2), "fc.2.weight": torch.zeros(2, 2)}
    content = under("encoder_q.", encoder | head) | under("encoder_k.", encoder | head, 1) | {"queue": torch.zeros(3)}
    model = initialise("resnet18", 4, init_seed=0, pretrained=Checkpoint(content)).state_dict()
    assert all(torch.equal(model[key], value) for key, value in encoder.items())
    assert torch.equal(model["fc.weight"], initialise("resnet18", 4, init_seed=0).state_dict()["fc.weight"])


def test_a_series_of_such_files_has_the_networks_names(weights: State, tmp_path: Path) -> None:
    """So that two of them can be compared tensor by tensor, from any kind of file."""
    torch.save(under("net.", weights) | {"loss.weight": torch.zeros(1)}, tmp_path / "a.ckpt")
    torch.save({"model": without_counters(weights), "model_ema": under("module.", weights, 1)}, tmp_path / "b.bin")
    about: dict[str, Any] = {"architecture": "resnet18", "num_classes": 7}
    first = CheckpointSeries.from_file(tmp_path / "a.ckpt", "a", **about).load()
    second = CheckpointSeries.from_file(tmp_path / "b.bin", "b", **about).load()
    averaged = CheckpointSeries.from_file(tmp_path / "b.bin", "b", weights="model_ema", **about).load()
    assert list(first.state_dict) == list(second.state_dict) == list(averaged.state_dict) == list(weights)
    assert torch.equal(averaged.state_dict["fc.bias"], weights["fc.bias"] + 1)


def test_a_file_is_checked_without_reading_its_weights(
    weights: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loading would refuse is refused; of the classifier only if it will be used.

    Of the tensors the statistics of BatchNorm alone are read, a few kilobytes each.
    """
    torch.save({"epoch": 3, "model": under("net.", weights) | {"loss.w": torch.zeros(1)}}, tmp_path / "a.pth")
    read, sizes = _ArchiveStorage.read, []

    def counted(storage: _ArchiveStorage, key: str, size: int) -> bytearray:
        sizes.append(size)
        return read(storage, key, size)

    monkeypatch.setattr(_ArchiveStorage, "read", counted)
    path = tmp_path / "a.pth"
    assert check_checkpoint_file(path, architecture="resnet18", num_classes=7).epoch == 3
    assert check_checkpoint_file(path, architecture="resnet18", num_classes=9, any_classifier=True).epoch == 3
    assert check_checkpoint_file(path).architecture is None
    with pytest.raises(UserError, match="its classifier has 7 classes, 9 are expected"):
        check_checkpoint_file(path, architecture="resnet18", num_classes=9)
    with pytest.raises(UserError, match="does not fit resnet34"):
        check_checkpoint_file(path, architecture="resnet34", any_classifier=True)
    with pytest.raises(UserError, match="has no weights under 'ema'"):
        check_checkpoint_file(path, architecture="resnet18", weights="ema")
    with pytest.raises(UserError, match="does not exist"):
        check_checkpoint_file(tmp_path / "b.pth")
    statistics = [value for name, value in weights.items() if "running" in name]
    assert sorted(sizes[: len(statistics)]) == sorted(value.numel() * value.itemsize for value in statistics)
    assert set(sizes) <= {value.numel() * value.itemsize for value in statistics}


FORMS = {
    "lora_A.default.weight": "merge them into the network",
    "base_layer.weight": "merge them into the network",
    "parametrizations.weight.original0": "remove_parametrizations",
    "weight_v": "remove_weight_norm",
    "weight_orig": "prune.remove",
    "_packed_params._packed_params": "quantised",
    "weight_fake_quant.scale": "quantised",
    "flat_param": "full state_dict",
}


@pytest.mark.parametrize("instead", [True, False], ids=["instead of the weight", "beside it"])
@pytest.mark.parametrize("name", FORMS)
def test_networks_in_another_form_are_named(tmp_path: Path, weights: State, name: str, instead: bool) -> None:
    """Adapters, quantised, pruned and parametrised networks: the error says so, and how to get plain weights."""
    state = {key: value for key, value in weights.items() if not (instead and key == "fc.weight")}
    torch.save(state | {f"fc.{name}": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=FORMS[name]):
        check_checkpoint_file(tmp_path / "a.pth", architecture="resnet18")


def test_averages_alone_are_said_to_be_such(tmp_path: Path, weights: State) -> None:
    """A file that holds nothing but averaged weights says so in the notes."""
    torch.save({"state_dict_ema": weights}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth").metadata.extra["notes"] == [
        "took the averaged weights under 'state_dict_ema', for there are no others"
    ]
