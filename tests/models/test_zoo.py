"""Models by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from transferscope.models import zoo
from transferscope.models.zoo import build_model, model_names
from transferscope.system.errors import UserError
from transferscope.system.references import allow


def test_same_seed_draws_the_same_weights_and_leaves_the_global_generator() -> None:
    """Weights depend on the seed alone; a draw after building is what it would have been without."""
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (build_model("fixup_resnet_small", 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), undisturbed)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["layer1.0.conv1.weight"], other["layer1.0.conv1.weight"])


def test_without_a_seed_the_global_generator_decides() -> None:
    """torch.manual_seed before two buildings gives equal weights; the second draw differs."""
    torch.manual_seed(5)
    first = build_model("fixup_resnet_small", 4)
    second = build_model("fixup_resnet_small", 4)
    torch.manual_seed(5)
    again = build_model("fixup_resnet_small", 4)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


@pytest.mark.parametrize("name", ["resnet18", "torchvision/mobilenet_v3_small", "googlenet", "squeezenet1_1"])
def test_torchvision_models_give_logits_while_they_train(name: str) -> None:
    """A plain tensor (B, num_classes), auxiliary classifiers left out."""
    assert build_model(name, 5, seed=0)(torch.rand(2, 3, 64, 64)).shape == (2, 5)


def test_timm_models_give_logits() -> None:
    """By bare name where torchvision has none of it, with options of the architecture."""
    model = build_model("vit_tiny_patch16_224", 5, seed=0, img_size=32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_a_prefix_chooses_between_torchvision_and_timm() -> None:
    """`resnet18` is torchvision's."""
    modules = [type(build_model(name, 3, seed=0)).__module__ for name in ("resnet18", "timm/resnet18")]
    assert [module.split(".")[0] for module in modules] == ["torchvision", "timm"]


def test_names_of_all_families_are_listed_once() -> None:
    """Fixup's first."""
    names = model_names()
    assert len(names) == len(set(names))
    assert {"fixup_resnet50", "resnet50", "vit_b_16", "convnext_tiny"} <= set(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fixup_resnet51", "unknown model 'fixup_resnet51': near matches are .*fixup_resnet50"),
        ("ResNet50", "near matches are .*resnet50"),
        ("torchvision/efficientnet_b9", "near matches are .*efficientnet_b"),
        ("keras/resnet50", "before '/' stands torchvision or timm"),
        ("hf-hub:somebody/model", "not in the local cache: fetch it by `hf download somebody/model`"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(name: str, message: str) -> None:
    """One line with the nearest names."""
    with pytest.raises(UserError, match=message):
        build_model(name, 3)


@pytest.mark.parametrize("name", ["timm/resnet50", "no_such_model"])
def test_without_timm_an_unknown_name_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm is optional."""
    monkeypatch.setattr(zoo, "_has_timm", lambda: False)
    with pytest.raises(UserError, match=r"pip install -e '.\[timm\]'"):
        build_model(name, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"width_per_grup": 64}, "no option 'width_per_grup': near matches are width_per_group"),
        ("vit_b_32", {"patch_size": 16}, "sets option 'patch_size' itself: leave it out"),
        ("resnet18", {"groups": 2}, "model 'resnet18' refuses its options {'groups': 2}"),
        ("vit_b_16", {"image_size": 30}, "model 'vit_b_16' refuses its options {'image_size': 30}: .*"),
        ("resnet18", {"weights": "DEFAULT"}, "'weights' is not taken: give pre-trained weights as a checkpoint"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict, message: str) -> None:
    """One line that names the model and the option."""
    with pytest.raises(UserError, match=message):
        build_model(name, 3, **options)


def test_wrong_options_of_timm_are_named() -> None:
    """The same for timm."""
    with pytest.raises(UserError, match="no option 'drop_rat': near matches are drop_rate"):
        build_model("timm/resnet18", 3, drop_rat=0.1)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, True, None])
def test_number_of_classes_must_be_positive(num_classes: object) -> None:
    """0 would remove the classifier of some models."""
    with pytest.raises(UserError, match=r"num_classes is .*positive whole number"):
        build_model("fixup_resnet_small", num_classes)  # type: ignore[arg-type]


def test_fixup_needs_neither_torchvision_nor_timm() -> None:
    """Importing them takes seconds, so the default network does not."""
    code = (
        "import sys; from transferscope.models.zoo import build_model; from transferscope.models.parts import *;"
        "split_at_modules(build_model('fixup_resnet_small', 2)); print({'torchvision', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def lazy(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(num_classes))


def test_layers_of_unknown_size_are_named() -> None:
    """A lazy layer has no weights to load or to compare before an image has passed."""
    allow(f"{__name__}:lazy")
    with pytest.raises(UserError, match=r"has a layer of unknown size, 2 \(LazyLinear\): put a blank image "):
        build_model(f"{__name__}:lazy", 3)
