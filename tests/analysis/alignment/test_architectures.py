"""The table of docs/alignment.md: which architectures are followed, and planted permutations that are found in them.

    python tests/analysis/alignment/test_architectures.py [name ...]      # prints rows of the table

Some are in the default run, the others have the mark `large` (`pytest -m large tests/analysis/alignment`).
"""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from tiny_project import ROOT
from transferscope.analysis.alignment import PermutationGroups, match_weights, permutation_groups, permute
from transferscope.models import build_model
from transferscope.system.errors import UserError

QUICK = {
    "fixup_resnet_small": 32, "squeezenet1_1": 64, "mobilenet_v3_small": 64, "shufflenet_v2_x0_5": 64,
    "regnet_y_400mf": 64, "mnasnet0_5": 64, "vit_tiny_patch16_224": 224,
    "convnext_atto": 64, "ghostnet_100": 64,
}  # fmt: skip
"""Architectures of the default run, and the side of the images on which they are followed."""

LARGE = {
    "resnet18": 64, "efficientnet_b0": 64, "densenet121": 64, "fixup_resnet18": 64, "fixup_resnet50": 64, "alexnet": 64, "vgg11": 64, "vgg11_bn": 64, "vgg16": 64, "vgg16_bn": 64,
    "resnet34": 64, "resnet50": 64, "wide_resnet50_2": 64, "resnext50_32x4d": 64, "squeezenet1_0": 64, "mobilenet_v2": 64,
    "mobilenet_v3_large": 64, "convnext_tiny": 64, "googlenet": 64, "inception_v3": 128, "mnasnet1_0": 64, "swin_t": 224,
    "vit_b_16": 224, "deit_tiny_patch16_224": 224, "deit_tiny_distilled_patch16_224": 224, "mixer_s32_224": 224,
    "resmlp_12_224": 224, "res2net50_26w_4s": 64, "dla34": 64, "seresnet50": 64, "resnet50_gn": 64, "resnetv2_50x1_bit": 64,
    "cspresnet50": 64, "hrnet_w18_small": 64, "repvgg_a0": 64, "convmixer_768_32": 64, "poolformer_s12": 64,
    "pit_ti_224": 224, "crossvit_tiny_240": 240, "mobilevit_xxs": 256, "swin_v2_t": 256, "eva02_tiny_patch14_224": 224,
    "resnest14d": 64, "ecaresnet26t": 64, "skresnet18": 64,
}  # fmt: skip

TOO_LARGE_TO_MATCH = {"alexnet", "vgg11", "vgg11_bn", "vgg16", "vgg16_bn", "vit_b_16"}
"""Their 4,096 or 768 channels are in too many products for a test; their groups are proved all the same."""

ALL = [
    *(pytest.param(name, size, id=name) for name, size in QUICK.items()),
    *(pytest.param(name, size, id=name, marks=pytest.mark.large) for name, size in LARGE.items()),
]


def build(name: str) -> nn.Module:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return build_model(name, 10, seed=0, **options)


def row(name: str, size: int, outcome: PermutationGroups | UserError) -> str:
    """One row of the table."""
    if isinstance(outcome, UserError):
        return f"| `{name}` | {size} | refused | | | {outcome} |"
    blocks = [group for group in outcome if group.blocks > 1]
    channels = sum(group.size for group in outcome)
    note = "; ".join(outcome.reasons)
    return f"| `{name}` | {size} | {len(outcome)} | {channels:,} | {len(blocks) or ''} | {note} |"


def outcome_of(model: nn.Module, size: int) -> PermutationGroups | UserError:
    try:
        return permutation_groups(model, torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)))
    except UserError as error:
        return error


def random_state(model: nn.Module) -> dict[str, Tensor]:
    """Noise of the size of each tensor's own values, so that nothing is zero or equal; variances are positive."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            spread = max(float(tensor.square().mean().sqrt()), 0.02)
            noise = 0.5 * spread * torch.randn(tensor.shape, generator=generator)
            state[key] = (tensor + noise).abs() + 0.1 if "running_var" in key else tensor + noise
        else:
            state[key] = tensor
    return state


def with_noise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A tenth of every tensor's norm."""
    generator = torch.Generator().manual_seed(5)
    noisy = {}
    for key, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        noisy[key] = tensor + 0.1 * tensor.norm() * noise / noise.norm() if tensor.is_floating_point() else tensor
    return noisy


@pytest.mark.parametrize(("name", "size"), ALL)
def test_architecture(name: str, size: int) -> None:
    """The row of the docs is what is found; the permuted network computes the same to 1e-5 (float32); a planted
    permutation is found exactly, and in noise at least 95 % of it; a network with itself gives the identity."""
    outcome = outcome_of(build(name), size)
    assert row(name, size, outcome) in (ROOT / "docs" / "alignment.md").read_text().splitlines()
    if isinstance(outcome, UserError):
        return
    state = random_state(outcome.model)
    planted = outcome.random(1)
    permuted = permute(outcome, planted, state)
    assert outcome.error(state, permuted) <= 1e-5
    if name in TOO_LARGE_TO_MATCH:
        return
    assert dict_equal(match_weights(outcome, state, permuted, restarts=1), planted.inverse())
    assert match_weights(outcome, state, state, restarts=1).moved == 0
    back = planted.then(match_weights(outcome, state, with_noise(permuted), restarts=1))
    right = sum(int((back[group] == torch.arange(len(back[group]))).sum()) for group in back)
    assert right >= 0.95 * sum(group.size for group in outcome)


def dict_equal(one, other) -> bool:
    return all(torch.equal(one[key], other[key]) for key in other)


def test_the_table_is_large_enough() -> None:
    """At least 40 architectures, at least 30 of them supported."""
    lines = (ROOT / "docs" / "alignment.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert len({line.split("|")[1] for line in rows}) >= 40
    assert sum("refused" not in line for line in rows) >= 30
    assert {line.split("`")[1] for line in rows} == {*QUICK, *LARGE}


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [*QUICK, *LARGE]:
        side = (QUICK | LARGE)[wanted]
        print(row(wanted, side, outcome_of(build(wanted), side)), flush=True)
