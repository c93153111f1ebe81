"""The architecture of weights by their tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from transferscope.models.recognition import recognize
from transferscope.models.zoo import build_model, build_skeleton
from transferscope.system.errors import UserError


def tensors(name: str, num_classes: int = 7, **options: Any) -> dict[str, torch.Tensor]:
    return build_skeleton(name, num_classes, **options).state_dict()


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("fixup_resnet18", {}, None),
        ("resnet18", {}, None),
        ("densenet121", {}, None),
        ("regnet_y_400mf", {}, None),
        ("mobilenet_v3_small", {}, None),
        ("vit_b_32", {}, 224),
        ("vit_b_16", {"image_size": 32}, 32),
    ],
)
def test_architectures_are_recognised_with_classes_and_size(name: str, options: dict, side: int | None) -> None:
    """The name, the options that differ from the default, the number of classes, the channels and the side."""
    recognised = recognize([tensors(name, **options)] * 2)
    assert (recognised.name, recognised.options) == (name, options)
    assert (recognised.num_classes, recognised.in_channels, recognised.image_side) == (7, 3, side)
    assert name in recognised.evidence
    assert all(not other.startswith(f"{name} ") for other in recognised.runners_up)


def test_a_skeleton_has_the_tensors_of_the_network() -> None:
    """Names, shapes and dtypes are those of `build_model`, and torch's generator is left alone."""
    torch.manual_seed(3)
    undisturbed = torch.rand(2)
    torch.manual_seed(3)
    skeleton = build_skeleton("resnet18", 5).state_dict()
    assert torch.equal(torch.rand(2), undisturbed)
    whole = build_model("resnet18", 5, seed=0).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in skeleton.items()} == {
        key: (value.shape, value.dtype) for key, value in whole.items()
    }
    assert all(value.is_meta for value in skeleton.values())


def test_prefixes_old_counters_and_other_networks_beside_are_allowed_for() -> None:
    """As when a checkpoint is loaded: a file of a training script, of torch before 0.4.1."""
    plain = {key: value for key, value in tensors("resnet18").items() if "num_batches" not in key}
    wrapped = {f"trunk.{key}": value for key, value in plain.items()}
    assert recognize([wrapped | {"queue": torch.empty(128, 8)}]).name == "resnet18"


def test_a_deeper_network_of_the_same_widths_comes_second() -> None:
    """ResNet-34 has all shapes of ResNet-18 and more tensors."""
    assert recognize([tensors("resnet18")]).runners_up[0].startswith("resnet34 (")
    assert recognize([tensors("resnet34")]).name == "resnet34"


def test_unknown_networks_are_refused_with_the_nearest_and_the_fix() -> None:
    """A ResNet-18 for 32 pixels has a stem of its own, which the line names."""
    small = tensors("resnet18") | {"conv1.weight": torch.empty(64, 3, 3, 3, device="meta")}
    with pytest.raises(UserError, match=r"nearest is resnet18, .*conv1.weight is 64x3x3x3.*--model file.py:function"):
        recognize([small])
    with pytest.raises(UserError, match="no network that is known here has these 2 tensors"):
        recognize([nn.Linear(3, 2).state_dict()])


def test_the_nearest_of_timm_is_named() -> None:
    """A MobileViT of timm with one more channel in a layer is a network that torchvision does not have."""
    own = tensors("mobilevit_xxs")
    changed = own | {"final_conv.conv.weight": torch.empty(321, 80, 1, 1, device="meta")}
    with pytest.raises(UserError, match=r"nearest is mobilevit_xxs, .*final_conv.conv.weight is 321x80x1x1"):
        recognize([changed])


def test_weights_without_classifier_and_of_several_networks_are_refused() -> None:
    """One line each."""
    headless = {key: value for key, value in tensors("resnet18").items() if not key.startswith("fc.")}
    with pytest.raises(UserError, match=r"resnet18 without its classifier fc.weight"):
        recognize([headless])
    with pytest.raises(UserError, match="different architectures, resnet18 and mobilenet_v3_small"):
        recognize([tensors("resnet18"), tensors("mobilenet_v3_small")])
    with pytest.raises(UserError, match="7 and 9 classes"):
        recognize([tensors("resnet18"), tensors("resnet18", 9)])
    with pytest.raises(UserError, match="no weights"):
        recognize([])


def test_networks_of_timm_are_recognised() -> None:
    """After those of torchvision; grey images are an option of timm's."""
    recognised = recognize([tensors("vit_tiny_patch16_224", img_size=32)])
    assert (recognised.num_classes, recognised.image_side) == (7, 32)
    assert (
        build_skeleton(recognised.name, 7, **recognised.options).state_dict().keys()
        == tensors("vit_tiny_patch16_224").keys()
    )
    grey = recognize([tensors("timm/resnet10t", in_chans=1)])
    assert (grey.name, grey.options, grey.in_channels) == ("resnet10t", {"in_chans": 1}, 1)


def test_the_same_tensors_of_different_functions_are_no_guess() -> None:
    """TensorFlow's padding changes what an EfficientNet computes; only what a file says of itself decides."""
    with pytest.raises(UserError, match=r"fit timm/efficientnet_b0, .*tf_efficientnet_b0, which compute.*--model"):
        recognize([tensors("timm/efficientnet_b0")])
    recognised = recognize([tensors("timm/efficientnet_b0")], hints=["tf_efficientnet_b0.ns_jft_in1k"])
    assert recognised.name == "tf_efficientnet_b0"


def test_a_network_of_timm_beside_one_of_torchvision_is_named() -> None:
    """ResNet-18 with blurred strides has the tensors of ResNet-18: it is a rival, and taken where the file names it."""
    plain = recognize([tensors("resnet18")])
    assert (plain.name, plain.rivals) == ("resnet18", ("resnetblur18",))
    assert "resnetblur18 of timm has the same tensors and computes other things" in plain.evidence
    blurred = recognize([tensors("resnetblur18")], hints=["resnetblur18.bt_in1k"])
    assert (blurred.name, blurred.rivals) == ("resnetblur18", ())
    assert blurred.evidence.endswith("of timm, and the file names it")


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm nothing is known of its networks with the same tensors, and the line says so."""
    monkeypatch.setattr("transferscope.models.zoo._has_timm", lambda: False)
    assert "timm, which is not installed, was not searched" in recognize([tensors("resnet18", 11)]).evidence
    assert "timm" not in recognize([tensors("fixup_resnet18", 11)]).evidence
