"""The corrected average has the means and standard deviations of its ends, and is a plain checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.alignment import add_biases, repair, rescale
from transferscope.analysis.alignment.channel_moments import layer_moments
from transferscope.analysis.alignment.variance import Corrected
from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.analysis.interpolation import interpolate
from transferscope.models import build_model
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(1)
IMAGES = torch.randn(30, 3, 8, 8, generator=GENERATOR)
LABELS = torch.zeros(30, dtype=torch.int64)
ONE = [(IMAGES, LABELS)]
SEVERAL = list(zip(IMAGES.split([11, 1, 18]), LABELS.split([11, 1, 18]), strict=True))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.GELU(), nn.ConvTranspose2d(8, 6, 2, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 49, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip


LAYERS = ["0", "2", "4", "7"]


def states(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    pair = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for key, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            small = 0.1 * noise + ("weight" in key or "scale" in key or "var" in key)
            state[key] = (noise / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else small).to(tensor.dtype)
        pair.append(state)
    return pair[0], pair[1]


MODEL = plain()
A, B = states(MODEL)


def with_inserted_batchnorm(alpha: float, *, shift: bool) -> nn.Module:
    """REPAIR as published: a BatchNorm behind every layer, its affine parameters the targets, one pass in training mode.

    RESCALE leaves the mean, so its BatchNorm adds back the mean that it takes away, scaled.
    """
    model = copy.deepcopy(MODEL)
    targets = []
    for state in (A, B):
        model.load_state_dict(state)
        values, moments = IMAGES, {}
        for name, layer in model.named_children():
            values = layer(values)
            flat = values.detach().movedim(1, 0).flatten(1)
            moments[name] = (flat.mean(1), flat.std(1, correction=0))
        targets.append(moments)
    model = copy.deepcopy(MODEL)
    model.load_state_dict(interpolate(A, B, alpha))
    layers: list[nn.Module] = []
    for name, layer in model.named_children():
        layers.append(layer)
        if name in LAYERS:
            channels = len(targets[0][name][0])
            norm = (nn.BatchNorm1d if isinstance(layer, nn.Linear) else nn.BatchNorm2d)(
                channels, eps=1e-12, momentum=None
            )
            means, stds = zip(targets[0][name], targets[1][name], strict=True)
            norm.weight.data = torch.lerp(*stds, alpha)
            norm.bias.data = torch.lerp(*means, alpha)
            if not shift:
                norm.train()
                with torch.no_grad():
                    values = nn.Sequential(*layers)(IMAGES).movedim(1, 0).flatten(1)
                norm.bias.data = values.mean(1) * norm.weight.data / values.std(1, correction=0)
            layers.append(norm.train())
    repaired = nn.Sequential(*layers)
    with torch.no_grad():
        repaired(IMAGES)
        # A BatchNorm stores the unbiased variance; the published code does not mind, we compare to 1e-4.
        for norm in repaired:
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                count = len(IMAGES) * {8: 36, 6: 49, 10: 1}[norm.num_features]
                norm.running_var *= (count - 1) / count
    return repaired.eval()


@pytest.mark.parametrize("batches", [ONE, SEVERAL, lambda: iter(SEVERAL)])
@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_moments_of_the_corrected_average_are_the_interpolated_ones(batches, alpha: float) -> None:
    """Means and standard deviations of all channels to 1e-4; `rescale` meets the standard deviations."""
    ends = [layer_moments(MODEL, state, batches, LAYERS) for state in (A, B)]
    repaired = layer_moments(MODEL, repair(MODEL, A, B, batches, alpha).state, batches, LAYERS)
    rescaled = layer_moments(MODEL, rescale(MODEL, A, B, batches, alpha).state, batches, LAYERS)
    for name in LAYERS:
        mean, std = (
            torch.lerp(*pair, alpha) for pair in zip(*((e[name].mean, e[name].std) for e in ends), strict=True)
        )
        torch.testing.assert_close(repaired[name].mean, mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(repaired[name].std, std, rtol=0, atol=1e-4)
        torch.testing.assert_close(rescaled[name].std, std, rtol=0, atol=1e-4)
        assert (rescaled[name].mean - mean).abs().max() > 1e-3


@pytest.mark.parametrize(("correct", "shift"), [(repair, True), (rescale, False)])
def test_as_with_inserted_batchnorm_layers(correct, shift: bool) -> None:
    """The plain checkpoint computes what the published construction does, which has more layers."""
    corrected = correct(MODEL, A, B, ONE)
    model = copy.deepcopy(MODEL)
    model.load_state_dict(corrected.state)
    expected = with_inserted_batchnorm(0.5, shift=shift)(IMAGES)
    torch.testing.assert_close(model(IMAGES), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("correct", [repair, rescale])
def test_folded_and_unfolded_agree(correct) -> None:
    """The average with scales and shifts behind its layers computes what the checkpoint does, to 1e-5."""
    corrected: Corrected = correct(MODEL, A, B, SEVERAL)
    folded, unfolded = copy.deepcopy(MODEL), copy.deepcopy(MODEL)
    folded.load_state_dict(corrected.state)
    unfolded.load_state_dict(interpolate(A, B, 0.5))
    for name in LAYERS:
        shape = (-1,) if name == "7" else (-1, 1, 1)
        scale, shift = corrected.scales[name].view(shape), corrected.shifts[name].view(shape)
        unfolded.get_submodule(name).register_forward_hook(
            lambda _, __, out, scale=scale, shift=shift: out * scale + shift
        )
    expected = unfolded(IMAGES)
    assert (folded(IMAGES) - expected).norm() <= 1e-5 * expected.norm()
    assert (correct is repair) == any(shift.any() for shift in corrected.shifts.values())


def test_one_batch_and_several_give_the_same() -> None:
    """One pass with correction on the way, or a pass for every layer: the same weights up to rounding."""
    one, several = repair(MODEL, A, B, ONE).state, repair(MODEL, A, B, SEVERAL).state
    for key, tensor in one.items():
        torch.testing.assert_close(several[key], tensor, rtol=1e-4, atol=1e-5)


def test_averaging_takes_variance_away_and_rescaling_gives_it_back() -> None:
    """Standard deviations of the average of independent networks are smaller than the ends', so scales exceed 1."""
    corrected = rescale(MODEL, A, B, ONE)
    assert all(corrected.scales[name].median() > 1.05 for name in LAYERS)
    assert "9" not in corrected.scales
    for key in ("9.weight", "9.bias"):
        assert torch.equal(corrected.state[key], interpolate(A, B, 0.5)[key])


def test_the_ends_and_equal_networks_need_no_correction() -> None:
    """At alpha 0 and 1, and between a network and itself, scales are 1 and shifts 0."""
    for state_b, alpha in ((B, 0.0), (A, 0.5), (B, 1.0)):
        corrected = repair(MODEL, A, state_b, ONE, alpha)
        for name in LAYERS:
            torch.testing.assert_close(
                corrected.scales[name], torch.ones_like(corrected.scales[name]), rtol=0, atol=1e-4
            )
            torch.testing.assert_close(
                corrected.shifts[name], torch.zeros_like(corrected.shifts[name]), rtol=0, atol=1e-4
            )


def test_batchnorm_networks_get_statistics_of_the_average() -> None:
    """As `recompute_statistics` on one batch; convolutions that a BatchNorm reads keep their weights.

    There each layer sees inputs that were normalised with the batch's own variance, here with the stored one, which is
    unbiased: a difference of one part in the number of values.
    """
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.BatchNorm1d(5)
    )
    a, b = states(model)
    corrected = rescale(model, a, b, ONE)
    assert corrected.normalised == ("1", "5")
    assert corrected.scales == {}
    model.load_state_dict(interpolate(a, b, 0.5))
    recompute_statistics(model, ONE)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(corrected.state[key], tensor, rtol=2 / (30 * 36), atol=2 / (30 * 36))


def test_layers_without_batchnorm_beside_it_are_corrected() -> None:
    """Of a network with both, the convolution that no BatchNorm reads is rescaled."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    )
    corrected = rescale(model, *states(model), SEVERAL)
    assert list(corrected.scales) == ["0"]
    assert corrected.normalised == ("3",)


def test_fixup_networks_are_rescaled_and_repaired_with_biases() -> None:
    """Scalars cannot shift channels apart, so `repair` names the layers; with biases added it meets mean and deviation."""
    model = build_model("fixup_resnet_small", 10, seed=0)
    a, b = states(model)
    images = [(torch.randn(20, 3, 32, 32, generator=GENERATOR), torch.zeros(20))]
    corrected = rescale(model, a, b, images)
    model.load_state_dict(corrected.state)
    with pytest.raises(
        UserError, match=r"which conv1, layer1\.0\.conv1, .* and \d+ more lack: give add_biases\(model\)"
    ):
        repair(model, a, b, images)
    extended = add_biases(model)
    torch.testing.assert_close(extended(images[0][0]), model(images[0][0]))
    repaired = repair(extended, a, b, images)
    layers = list(repaired.scales)
    assert len(layers) == 15
    ends = [layer_moments(model, state, images, layers) for state in (a, b)]
    moments = layer_moments(extended, repaired.state, images, layers)
    for name in layers:
        torch.testing.assert_close(
            moments[name].mean, (ends[0][name].mean + ends[1][name].mean) / 2, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(moments[name].std, (ends[0][name].std + ends[1][name].std) / 2, rtol=1e-4, atol=1e-4)


def test_dead_channels_are_left_and_counted() -> None:
    """A channel without weights in the average has no variance to scale."""
    a, b = {key: tensor.clone() for key, tensor in A.items()}, {key: tensor.clone() for key, tensor in B.items()}
    b["0.weight"][2] = -a["0.weight"][2]
    corrected = rescale(MODEL, a, b, ONE)
    assert corrected.dead >= 1
    assert corrected.scales["0"][2] == 1
    assert all(tensor.isfinite().all() for tensor in corrected.state.values())


def test_nothing_that_is_given_is_changed() -> None:
    """The model's weights and mode, and both states."""
    model = copy.deepcopy(MODEL).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    a, b = {key: tensor.clone() for key, tensor in A.items()}, {key: tensor.clone() for key, tensor in B.items()}
    repair(model, a, b, SEVERAL)
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(a[key], A[key]) and torch.equal(b[key], B[key]) for key in A)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x).relu()).mean((2, 3)))


def test_wrong_arguments_are_one_line() -> None:
    """No images, one value a channel, non-finite weights, other shapes, a layer that is used twice."""
    with pytest.raises(UserError, match="batches are empty"):
        rescale(MODEL, A, B, [])
    with pytest.raises(UserError, match="layer 7: statistics need at least two values"):
        rescale(MODEL, A, B, [(IMAGES[:1], LABELS[:1])])
    with pytest.raises(UserError, match=r"checkpoint b has non-finite weights in 0\.bias"):
        repair(MODEL, A, {**B, "0.bias": B["0.bias"] / 0}, ONE)
    with pytest.raises(UserError, match=r"9\.bias \(4,\) in the network but \(3,\) in checkpoint a"):
        repair(MODEL, {**A, "9.bias": torch.zeros(3)}, B, ONE)
    with pytest.raises(UserError, match="layer conv is used twice"):
        rescale(Twice(), Twice().state_dict(), Twice().state_dict(), ONE)
    with pytest.raises(UserError, match="alpha is nan"):
        rescale(MODEL, A, B, ONE, float("nan"))
