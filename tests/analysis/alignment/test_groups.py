"""Permutation groups are found from the network, and permuting along them changes nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.alignment import PermutationGroups, permutation_groups, permute
from transferscope.system.errors import UserError

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Function(nn.Module):
    """Layers by name, and a forward pass written as a function of them and the input."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.body = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def conv(cin: int, cout: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding="same", **options)


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def shuffled(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def residual(self, x: Tensor) -> Tensor:
    x = self.stem(x).relu()
    return self.head(x + self.b(self.a(x).relu()))


def attention(self, x: Tensor) -> Tensor:
    tokens = self.embed(x).flatten(2).transpose(1, 2)
    batch, number, width = tokens.shape
    q, k, v = self.qkv(self.norm(tokens)).reshape(batch, number, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(batch, number, width)
    return self.head((tokens + self.proj(mixed)).mean(1))


def multihead(self, x: Tensor) -> Tensor:
    tokens = self.embed(x).flatten(2).transpose(1, 2)
    return self.head((tokens + self.mha(tokens, tokens, tokens, need_weights=False)[0])[:, 0])


def split_and_joined(self, x: Tensor) -> Tensor:
    first, second = self.a(x).relu().chunk(2, dim=1)
    return self.head(torch.cat([first, self.b(second), second], 1))


def padded_shortcut(self, x: Tensor) -> Tensor:
    x = self.a(x).relu()
    return self.head(self.b(x)[:, :, ::2, ::2] + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


def written_in_parts(self, x: Tensor) -> Tensor:
    out = x.new_zeros(len(x), 8, 8, 8)
    out[:, :4] = self.a(x)
    return self.head(out)


NETWORKS = {
    "plain": (nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 4), nn.GELU(), head(4)), [6, 4]),
    "dilated, strided": (nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(24, 5)), [6]),
    "transposed": (nn.Sequential(conv(3, 6), nn.ConvTranspose2d(6, 8, 2, stride=2), nn.ReLU(), head(8)), [6, 8]),
    "transposed in groups": (nn.Sequential(conv(3, 6), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.ReLU(), head(4)), [6, 4]),
    "in groups": (nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 12, groups=3), nn.ReLU(), head(12)), [6, 12]),
    "in groups, normalised in groups": (
        nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 16, groups=4), nn.GroupNorm(2, 16), nn.ReLU(), head(16)), [8, 16],
    ),
    "depthwise": (nn.Sequential(conv(3, 6), conv(6, 6, groups=6), nn.Hardswish(), head(6)), [6]),
    "depthwise, two each": (nn.Sequential(conv(3, 6), conv(6, 12, groups=6), nn.ReLU(), head(12)), [6, 12]),
    "BatchNorm": (nn.Sequential(conv(3, 6, bias=False), nn.BatchNorm2d(6), nn.ReLU(), head(6)), [6]),
    "GroupNorm": (nn.Sequential(conv(3, 6), nn.GroupNorm(3, 6), nn.ReLU(), head(6)), [6]),
    "GroupNorm of one": (nn.Sequential(conv(3, 6), nn.GroupNorm(1, 6), nn.ReLU(), head(6)), [6]),
    "InstanceNorm": (nn.Sequential(conv(3, 6), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), head(6)), [6]),
    "InstanceNorm with statistics": (
        nn.Sequential(conv(3, 6), nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.ReLU(), head(6)), [6],
    ),
    "LayerNorm": (nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 5)), [6]),
    "LayerNorm over images": (nn.Sequential(conv(3, 6), nn.LayerNorm([6, 8, 8]), nn.ReLU(), head(6)), [6]),
    "RMSNorm": (nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.RMSNorm(6), nn.Linear(6, 5)), [6]),
    "flatten and BatchNorm1d": (
        nn.Sequential(conv(3, 6), nn.MaxPool2d(4), nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 5)), [6],
    ),
    "PReLU": (nn.Sequential(conv(3, 6), nn.PReLU(6), head(6)), [6]),
    "GLU": (nn.Sequential(conv(3, 12), nn.GLU(1), head(6)), [6]),
    "pooling": (nn.Sequential(conv(3, 6), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2), head(6)), [6]),
    "pixel shuffle": (nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 6), head(6)), [4, 6]),
    "weight norm": (nn.Sequential(nn.utils.parametrizations.weight_norm(conv(3, 6)), nn.ReLU(), head(6)), [6]),
    "residual": (Function(residual, stem=conv(3, 6), a=conv(6, 8), b=conv(8, 6), head=head(6)), [6, 8]),
    "squeeze and excitation": (
        Function(
            lambda self, x: self.head((y := self.a(x).relu()) * self.up(self.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()),
            a=conv(3, 6), down=conv(6, 4, 1), up=conv(4, 6, 1), head=head(6),
        ), [6, 4],
    ),
    "channel shuffle": (Function(lambda self, x: self.head(self.b(shuffled(self.a(x), 2))), a=conv(3, 6), b=conv(6, 4), head=head(4)), [6, 4]),
    "split and joined": (Function(split_and_joined, a=conv(3, 8), b=conv(4, 4), head=head(12)), [4, 4, 4]),
    "padded shortcut": (Function(padded_shortcut, a=conv(3, 4), b=conv(4, 8), head=head(8)), [4, 4]),
    "attention": (
        Function(
            attention, embed=nn.Conv2d(3, 8, 4, stride=4), norm=nn.LayerNorm(8), qkv=nn.Linear(8, 24), proj=nn.Linear(8, 8), head=nn.Linear(8, 5),
        ), [8, 8, 8],
    ),
    "nn.MultiheadAttention": (
        Function(multihead, embed=nn.Conv2d(3, 8, 4, stride=4), mha=nn.MultiheadAttention(8, 2, batch_first=True), head=nn.Linear(8, 5)),
        [8, 8, 8],
    ),
    "transformer layer": (
        Function(
            lambda self, x: self.head(self.layer(self.embed(x).flatten(2).transpose(1, 2)).mean(1)),
            embed=nn.Conv2d(3, 8, 4, stride=4), layer=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), head=nn.Linear(8, 5),
        ), [8, 8, 8, 16],
    ),
    "scalars as in Fixup": (
        Function(
            lambda self, x: self.head((self.a(x) + self.shift).relu() * self.scale),
            a=conv(3, 6), head=head(6), shift=nn.Parameter(torch.ones(1)), scale=nn.Parameter(torch.ones(1)),
        ), [6],
    ),
    "a constant in part of the channels": (
        Function(lambda self, x: self.head(torch.cat([self.a(x), x.new_ones(len(x), 4, 8, 8)], 1)), a=conv(3, 6), head=head(10)), [4, 6],
    ),
    "stacked": (Function(lambda self, x: self.head(torch.stack([self.a(x), self.b(x)]).sum(0)), a=conv(3, 6), b=conv(3, 6), head=head(6)), [6]),
    "einsum": (
        Function(lambda self, x: torch.einsum("bchw,ck->bk", self.a(x).relu(), self.w), a=conv(3, 6), w=nn.Parameter(torch.randn(6, 5))), [6],
    ),
}  # fmt: skip
"""A network and the sizes of its groups."""


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_follow_from_the_network(name: str) -> None:
    """Groups of the sizes that the network has; a random permutation of all moves weights and not the output."""
    torch.manual_seed(0)
    model, sizes = NETWORKS[name]
    groups = permutation_groups(model, IMAGE)
    assert sorted(group.size for group in groups) == sorted(sizes)
    assert groups.reasons == ()
    state = {
        key: tensor + 0.1 * torch.rand(tensor.shape) if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
    }
    permutation = groups.random(5)
    permuted = permute(groups, permutation, state)
    assert permutation.moved > 0.3
    assert sum(not torch.equal(permuted[key], state[key]) for key in state) >= 2
    model.load_state_dict(state)
    expected = model.eval()(IMAGE)
    model.load_state_dict(permuted)
    torch.testing.assert_close(model(IMAGE), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "group", "blocks"),
    [("in groups", 0, 3), ("GroupNorm", 0, 3), ("attention", 1, 2), ("nn.MultiheadAttention", 1, 2), ("plain", 0, 1)],
)
def test_channels_in_blocks(name: str, group: int, blocks: int) -> None:
    """Groups of convolutions, of a GroupNorm, and heads are blocks; tearing one apart is refused."""
    groups = permutation_groups(NETWORKS[name][0], IMAGE)
    channels = groups.groups[group]
    assert channels.blocks == blocks
    if blocks > 1:
        torn = groups.identity().sources | {channels.name: torch.arange(channels.size).roll(1)}
        with pytest.raises(UserError, match="tears a block"):
            permute(groups, torn, groups.model.state_dict())


def test_groups_of_one_head_go_together() -> None:
    """Queries and keys cannot stay where they are while values change heads."""
    groups = permutation_groups(NETWORKS["attention"][0], IMAGE)
    keys, values = (group for group in groups if group.blocks == 2)
    for moved in (keys, values):
        torn = groups.identity().sources | {moved.name: torch.arange(8).roll(4)}
        with pytest.raises(UserError, match="tears a block"):
            permute(groups, torn, groups.model.state_dict())
    both = groups.identity().sources | {group.name: torch.arange(8).roll(4) for group in (keys, values)}
    permute(groups, both, groups.model.state_dict())


def test_axes_of_a_group() -> None:
    """A residual stream stands on the outputs of what writes to it and the inputs of what reads it."""
    groups = permutation_groups(NETWORKS["residual"][0], IMAGE)
    places = {(axis.key, axis.axis) for axis in groups["stem.weight[0]"].axes}
    expected = {
        ("stem.weight", 0),
        ("stem.bias", 0),
        ("a.weight", 1),
        ("b.weight", 0),
        ("b.bias", 0),
        ("head.2.weight", 1),
    }
    assert places == expected


def test_flattened_channels_have_a_position_for_every_pixel() -> None:
    """Columns of a linear layer behind a flattened map go with their channel."""
    groups = permutation_groups(NETWORKS["dilated, strided"][0], IMAGE)
    axis = next(axis for axis in groups.groups[0].axes if axis.key == "3.weight")
    assert axis.positions.tolist() == torch.arange(24).view(6, 4).tolist()


class Sorted(nn.Module):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(192, 6), nn.Linear(6, after), nn.Linear(after, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x.flatten(1)).cumsum(1)).relu())


def test_what_cannot_be_followed_stays_in_place_and_is_named() -> None:
    """Channels of a cumulative sum have an order; the next layer's have none."""
    groups = permutation_groups(Sorted(7), IMAGE)
    assert [group.name for group in groups] == ["b.weight[0]"]
    assert groups.reasons == ("aten.cumsum could not be followed, 6 channels stay in place",)


def test_parts_of_a_constant_that_are_written_stay_in_place() -> None:
    """A tensor filled part by part has no labels of its own; that is said, and the proof still holds."""
    model = Function(written_in_parts, a=conv(3, 4), head=head(8))
    with pytest.raises(UserError, match=r"that can be permuted: aten.copy_ could not be followed, 4 channels"):
        permutation_groups(model, IMAGE)


def test_nothing_to_permute() -> None:
    """A linear classifier has no hidden channel, and a network whose only one is sorted names the operation."""
    with pytest.raises(UserError, match="no hidden layer"):
        permutation_groups(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), IMAGE)
    model = Function(
        lambda self, x: self.b(self.a(x.flatten(1)).sort(1).values), a=nn.Linear(192, 6), b=nn.Linear(6, 5)
    )
    with pytest.raises(UserError, match=r"aten.sort could not be followed, 6 channels"):
        permutation_groups(model, IMAGE)


class Deceiving(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * (1 + torch.arange(x.shape[1])).numpy()[None, :, None, None])


def test_what_leaves_torch_is_refused() -> None:
    """Values that pass through NumPy are not seen, and so the proof by a random permutation fails."""
    model = Function(
        lambda self, x: self.head(self.b(Deceiving.apply(self.a(x).detach()).float())),
        a=conv(3, 6),
        b=conv(6, 6),
        head=head(6),
    )
    with pytest.raises(UserError, match=r"one of the operations on a\.weight\[0\] was not followed correctly"):
        permutation_groups(model, IMAGE)


def test_wrong_input_is_one_line() -> None:
    """Inputs that the network cannot take, and empty ones."""
    model = NETWORKS["plain"][0]
    for image, message in (
        (torch.randn(1, 4, 8, 8), r"Sequential cannot be followed on an input of shape \(1, 4, 8, 8\)"),
        (torch.empty(0, 3, 8, 8), "at least one example"),
        ([1, 2], "at least one example"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            permutation_groups(model, image)
        assert "\n" not in str(caught.value)


def test_wrong_weights_and_permutations_are_one_line() -> None:
    """Another architecture, a NaN, an index twice, groups of another network."""
    groups = permutation_groups(NETWORKS["plain"][0], IMAGE)
    state = groups.model.state_dict()
    identity = groups.identity()
    with pytest.raises(UserError, match="not weights of one architecture"):
        permute(groups, identity, {**state, "0.bias": torch.zeros(7)})
    with pytest.raises(UserError, match=r"non-finite weights in 0\.bias"):
        permute(groups, identity, {**state, "0.bias": torch.full((6,), torch.nan)})
    with pytest.raises(UserError, match="no order of its 6 channels"):
        permute(groups, identity.sources | {"0.weight[0]": torch.zeros(6, dtype=torch.int64)}, state)
    with pytest.raises(UserError, match="other groups"):
        permute(groups, {"0.weight[0]": torch.arange(6)}, state)
    with pytest.raises(UserError, match="no permutation group 'stem': there are"):
        groups["stem"]


def test_shared_tensors_are_permuted_under_both_names() -> None:
    """Two layers with one weight: both names get the same permuted tensor."""
    model = Function(
        lambda self, x: self.head(self.b(self.a(self.stem(x)).relu()).relu()),
        stem=conv(3, 6),
        a=conv(6, 6),
        b=conv(6, 6),
        head=head(6),
    )
    model.b.weight = model.a.weight
    groups = permutation_groups(model, IMAGE)
    permuted = permute(groups, groups.random(2), model.state_dict())
    assert torch.equal(permuted["a.weight"], permuted["b.weight"])
    assert not torch.equal(permuted["a.weight"], model.a.weight)


def test_permutations_compose_and_invert() -> None:
    """Permuting twice is permuting by the composition; the inverse brings the weights back to the bit."""
    groups: PermutationGroups = permutation_groups(NETWORKS["attention"][0], IMAGE)
    state = groups.model.state_dict()
    one, other = groups.random(1), groups.random(2)
    twice = permute(groups, other, permute(groups, one, state))
    for key, tensor in permute(groups, one.then(other), state).items():
        assert torch.equal(tensor, twice[key])
    for key, tensor in permute(groups, one.inverse(), permute(groups, one, state)).items():
        assert torch.equal(tensor, state[key])


def test_the_model_stays_as_it_was() -> None:
    """Modes, weights and statistics are untouched, and weights that are given are not written to."""
    model = nn.Sequential(conv(3, 6), nn.BatchNorm2d(6), nn.ReLU(), head(6)).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    groups = permutation_groups(model, IMAGE)
    permute(groups, groups.random(0), model.state_dict())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_unused_weights_are_named() -> None:
    """What the output does not depend on, such as auxiliary classifiers, is listed and not permuted."""
    model = Function(lambda self, x: self.head(self.a(x).relu()), a=conv(3, 6), head=head(6), auxiliary=head(6))
    assert permutation_groups(model, IMAGE).unused == ("auxiliary.2.weight", "auxiliary.2.bias")
