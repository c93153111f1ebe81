from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from transferscope.analysis.batchnorm import (
    batchnorm_layers,
    recompute_statistics,
    with_recomputed_statistics,
)
from transferscope.analysis.evaluator import Evaluator
from transferscope.analysis.interpolation import barrier, walk
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(23, 3, 6, 6, generator=GENERATOR)
LABELS = torch.randint(0, 2, (23,), generator=GENERATOR)


def make_net(seed: int = 0) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 5),
        nn.BatchNorm1d(5),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.eval()


def split(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(IMAGES.split(list(sizes)), LABELS.split(list(sizes)), strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_one_batch_gives_the_moments_of_its_values(layout: torch.memory_format, offset: float) -> None:
    """Mean and unbiased variance of what each layer is given, by the definition in float64; also far from 0."""
    net, seen = make_net(), {}
    layers = batchnorm_layers(net)
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].double()}))
    recompute_statistics(net, [((IMAGES + offset).contiguous(memory_format=layout), LABELS)])
    assert set(seen) == {"1", "6"}
    for name, layer in layers.items():
        values = seen[name].movedim(1, 0).flatten(1)
        torch.testing.assert_close(layer.running_mean.double(), values.mean(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(layer.running_var.double(), values.var(1), rtol=2e-5, atol=0)


def test_a_layer_that_keeps_no_statistics_is_named() -> None:
    """Without them its running variance would be what was there before, or nothing."""

    class Forgetful(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.batch_norm(input, None, None, self.weight, self.bias, training=True)

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Forgetful(4)).eval()
    with pytest.raises(UserError, match="layer 1 does not keep statistics"):
        recompute_statistics(net, split(10, 13))
    assert net[1].running_var.tolist() == [1] * 4


def test_unequal_batches_pool_to_the_full_pass() -> None:
    """The first layer's mean and variance over three unequal batches are those of all examples at once."""
    net, whole = make_net(), make_net()
    recompute_statistics(net, split(3, 4, 16))
    recompute_statistics(whole, split(23))
    torch.testing.assert_close(net[1].running_mean, whole[1].running_mean)
    torch.testing.assert_close(net[1].running_var, whole[1].running_var)
    # Later layers saw inputs normalised by the batch: near, not equal.
    torch.testing.assert_close(net[6].running_mean, whole[6].running_mean, rtol=0.3, atol=1.5)


def test_old_statistics_do_not_matter_and_nothing_else_changes() -> None:
    """The result forgets what was stored; weights, counters, momentum and modes stay; no dropout acts."""
    net, other = make_net(), make_net()
    other[1].running_mean.fill_(9.0)
    other[1].running_var.fill_(9.0)
    recompute_statistics(net, split(10, 13))
    recompute_statistics(other, split(10, 13))
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])
        assert "running" in key or torch.equal(tensor, make_net().state_dict()[key])
    assert net[1].momentum == 0.1
    assert not any(module.training for module in net.modules())
    assert not net[1]._forward_pre_hooks


def test_an_error_on_the_way_leaves_the_layers_as_they_were() -> None:
    """A failing batch restores momentum and counters, and removes the hooks."""
    net = make_net()
    with pytest.raises(RuntimeError):
        recompute_statistics(net, [(torch.zeros(2, 7, 6, 6), LABELS[:2])])
    assert net[1].momentum == 0.1
    assert int(net[1].num_batches_tracked) == 0
    assert net[1].running_var.tolist() == [1] * 4
    assert not net[1]._forward_pre_hooks
    assert not net[1]._forward_hooks


def test_no_examples_are_refused() -> None:
    """Statistics of nothing do not exist."""
    with pytest.raises(UserError, match="at least two values"):
        recompute_statistics(make_net(), [])


def test_recomputed_and_naive_stand_side_by_side() -> None:
    """The naive ends are the checkpoints' own; recomputed values are those of a model recomputed by hand."""
    batches = split(23)
    states = []
    for seed in (1, 2):
        net = make_net(seed)
        recompute_statistics(net, batches)
        states.append(copy.deepcopy(net.state_dict()))
    evaluate = Evaluator(batches)
    table = walk(make_net(), *states, [0, 0.5, 1], with_recomputed_statistics(evaluate, batches))
    values = table.pivot(index="alpha", columns="metric", values="value")
    by_hand = make_net()
    by_hand.load_state_dict(states[0])
    assert values.loc[0, "naive_loss"] == evaluate(by_hand)["loss"]
    for key in states[0]:
        by_hand.state_dict()[key].copy_(torch.lerp(states[0][key].float(), states[1][key].float(), 0.5))
    recompute_statistics(by_hand, batches)
    assert values.loc[0.5, "loss"] == pytest.approx(evaluate(by_hand)["loss"], rel=1e-5)


def test_permuted_channels_make_a_barrier_that_recomputing_lowers() -> None:
    """Half-way between a network and its copy with permuted channels the activations shrink (variance collapse).

    The interpolated running variances do not see this; recomputed ones do, and the loss rises less.
    """
    generator = torch.Generator().manual_seed(3)
    classes = torch.randn(4, 12, generator=generator)
    labels = torch.arange(400) % 4
    inputs = classes[labels] + 0.5 * torch.randn(400, 12, generator=generator)
    net = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3, generator=generator)
        net[1].weight.fill_(1.0)
    for _ in range(80):
        loss = nn.functional.cross_entropy(net(inputs), labels)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.sub_(0.5 * gradient)
    net.eval()
    batches = [(inputs, labels)]
    recompute_statistics(net, batches)
    order = torch.randperm(32, generator=generator)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    permuted = {
        key: tensor[:, order]
        if key == "3.weight"
        else tensor[order]
        if tensor.dim() and tensor.shape[0] == 32
        else tensor
        for key, tensor in state.items()
    }
    table = walk(net, state, permuted, [0, 0.25, 0.5, 0.75, 1], with_recomputed_statistics(Evaluator(batches), batches))
    values = table.pivot(index="alpha", columns="metric", values="value")
    assert values.loc[1.0, "naive_loss"] == pytest.approx(values.loc[0.0, "naive_loss"], rel=1e-4)
    naive = barrier(values.index, values["naive_loss"], higher_is_better=False)
    recomputed = barrier(values.index, values["loss"], higher_is_better=False)
    assert recomputed < 0.8 * naive


def test_one_value_a_channel_is_refused() -> None:
    """A batch of one image where a layer sees single pixels has no variance."""
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4))
    with pytest.raises(UserError, match="at least two values a channel; give more examples"):
        recompute_statistics(model, [(torch.zeros(1, 3, 8, 8), torch.zeros(1))])


def test_a_model_against_itself_has_no_barrier() -> None:
    """Ends and middle are treated alike: both variants of every metric are flat to the last bit.

    The stored statistics are far from those of the images, so that a mixture of stored and recomputed would show.
    """
    net, batches = make_net(1), split(8, 15)
    net[1].running_mean.add_(3.0)
    net[6].running_var.mul_(5.0)
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    table = walk(net, state, state, [0, 0.3, 0.5, 1], with_recomputed_statistics(Evaluator(batches), batches))
    assert set(table["metric"]) == {"accuracy", "loss", "naive_accuracy", "naive_loss"}
    assert (table.groupby("metric")["value"].nunique() == 1).all()
    values = table.set_index(["metric", "alpha"])["value"]
    assert values["loss", 0] != values["naive_loss", 0]


def test_layers_that_are_synchronised_between_processes_are_recomputed_alike() -> None:
    """SyncBatchNorm in one process has the statistics of BatchNorm, and its counter stays."""
    net = make_net()
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    for model in (net, synchronised):
        recompute_statistics(model, split(10, 13))
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(synchronised.state_dict()[key], tensor)
