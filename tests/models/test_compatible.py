"""What does not fit is listed."""

from __future__ import annotations

import pytest
import torch

from transferscope.models.compatible import check_compatible, infer_num_classes
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError


def small(num_classes: int = 3, **options: object) -> torch.nn.Module:
    return build_model("fixup_resnet_small", num_classes, seed=0, **options)


def test_own_weights_fit() -> None:
    """Of any draw and type."""
    check_compatible(small().double().state_dict(), small())


def test_missing_unexpected_and_misshapen_tensors_are_listed_with_their_shapes() -> None:
    """All three kinds in one line, beginning with what was read."""
    state = small().state_dict()
    del state["bias1"]
    state["extra"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(16, 1, 5, 5)
    message = (
        "a.pth does not fit a small net: missing: bias1; unexpected: extra; "
        "of another shape: conv1.weight (16x1x5x5 for 16x3x5x5)"
    )
    with pytest.raises(UserError) as error:
        check_compatible(state, small(), source="a.pth", expected="a small net")
    assert str(error.value) == message


def test_another_number_of_classes_is_said_as_such() -> None:
    """Both numbers."""
    with pytest.raises(UserError, match="its classifier has 345 classes, 3 are expected; of another shape: fc"):
        check_compatible(small(345).state_dict(), small())


def test_another_architecture_lists_ten_tensors_and_counts_the_rest() -> None:
    """One line that a terminal can hold."""
    with pytest.raises(
        UserError, match=r"does not fit FixupResNet: missing: .* and \d+ more; unexpected: .* more"
    ) as error:
        check_compatible(build_model("resnet18", 3, seed=0).state_dict(), small())
    assert len(str(error.value)) < 1500
    assert "\n" not in str(error.value)


def test_ignored_tensors_may_be_anything() -> None:
    """Missing, or of another shape."""
    state = small(7).state_dict()
    del state["fc.bias"]
    check_compatible(state, small(), ignore={"fc.weight", "fc.bias"})


@pytest.mark.parametrize("name", ["fixup_resnet_small", "resnet18", "squeezenet1_1"])
def test_number_of_classes_is_inferred(name: str) -> None:
    """Linear classifier or 1x1 convolution."""
    assert infer_num_classes(build_model(name, 5, seed=0).state_dict(), name, {}) == 5


def test_weights_without_classifier_say_so() -> None:
    """The error names the tensor."""
    with pytest.raises(UserError, match=r"x has no tensor fc\.weight"):
        infer_num_classes({}, "fixup_resnet_small", {}, source="x")
