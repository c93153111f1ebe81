"""Learning rates and parameter groups."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from transferscope.experiment.options import TrainingOptions
from transferscope.experiment.plan import make_plan
from transferscope.models.plain_sgd import PlainSGD
from transferscope.system.errors import UserError
from transferscope.training.device import reproducible
from transferscope.training.optim import learning_rate, make_optimizer, parameter_groups, set_learning_rate


class Scalars(nn.Module):
    """A layer beside Fixup's scalars, and names that only look like them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)
        self.bias1a = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.temperature = nn.Parameter(torch.ones(1))


def test_drops_are_those_of_multisteplr() -> None:
    """Epoch by epoch the learning rate equals that of torch's MultiStepLR, stepped once an epoch."""
    options = TrainingOptions(epochs=12, lr=0.3, milestones=(3, 7, 8), decay_factor=0.2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7, 8], gamma=0.2)
    for epoch in range(12):
        expected = optimizer.param_groups[0]["lr"]
        assert [learning_rate(options, epoch * 5 + step, 5) for step in range(5)] == pytest.approx([expected] * 5)
        optimizer.step()
        scheduler.step()


def test_warm_up_rises_linearly_over_its_part_of_all_steps() -> None:
    """With 2 epochs of 10 steps and a fifth of them, steps 0 to 3 take a quarter more each, and the rest all."""
    options = TrainingOptions(epochs=2, lr=0.8, warmup_fraction=0.2)
    rates = [learning_rate(options, step, 10) for step in range(20)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + [0.8] * 16)


def test_lr_scales_with_the_batch_where_asked() -> None:
    """At a batch of 32 the base of 0.1 becomes 0.0125, as in the authors' code."""
    options = TrainingOptions(lr=0.1, batch_size=32, scale_lr_by_batch=True)
    assert learning_rate(options, 0, 1) == pytest.approx(0.0125)


def test_only_one_element_biases_and_scales_are_slow() -> None:
    """The scalars' group holds Fixup's two, not the classifier's bias and not a scalar of another name."""
    model = Scalars()
    fast, slow = parameter_groups(model, TrainingOptions(scalar_lr_factor=0.25))
    assert {id(p) for p in slow["params"]} == {id(model.bias1a), id(model.scale)}
    assert {id(p) for p in fast["params"]} == {id(model.fc.weight), id(model.fc.bias), id(model.temperature)}
    assert (fast["lr_factor"], slow["lr_factor"]) == (1.0, 0.25)


def test_a_step_moves_scalars_by_their_factor() -> None:
    """With equal gradients of 1 and no momentum, weights move by lr and scalars by a tenth of it."""
    model = Scalars()
    optimizer = make_optimizer(model, TrainingOptions(momentum=0, weight_decay=0, scalar_lr_factor=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = model.temperature.item()
    set_learning_rate(optimizer, 0.5)
    optimizer.step()
    assert model.temperature.item() == pytest.approx(before - 0.5)
    assert model.scale.item() == pytest.approx(1 - 0.05)


def test_weight_decay_acts_on_scalars_too() -> None:
    """With zero gradients every parameter shrinks by its own lr times the decay."""
    model = Scalars()
    optimizer = make_optimizer(model, TrainingOptions(momentum=0, weight_decay=0.5, scalar_lr_factor=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_learning_rate(optimizer, 0.2)
    optimizer.step()
    assert model.temperature.item() == pytest.approx(1 - 0.2 * 0.5)
    assert model.scale.item() == pytest.approx(1 - 0.02 * 0.5)


def test_zero_learning_rate_changes_no_weight() -> None:
    """Whatever the gradients, a step at learning rate 0 leaves every bit."""
    model = Scalars()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(model, TrainingOptions())
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        set_learning_rate(optimizer, 0.0)
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_sgd_is_that_of_torch_to_the_bit_and_loads_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and momenta after steps and a restored state are torch's, where `torch._dynamo` cannot be imported."""

    def after_steps(kind: type[torch.optim.SGD]) -> tuple[list[torch.Tensor], dict[str, object]]:
        generator = torch.Generator().manual_seed(3)
        weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 5), (7,))]
        optimizer = kind(weights, lr=0.3, momentum=0.9, weight_decay=1e-2, fused=True)
        for _ in range(2):
            optimizer.load_state_dict(optimizer.state_dict())
            optimizer.zero_grad()
            sum((weight * torch.randn(weight.shape, generator=generator)).sum() for weight in weights).backward()  # type: ignore[union-attr]
            optimizer.step()
        return weights, optimizer.state_dict()

    expected, expected_state = after_steps(torch.optim.SGD)
    before = torch.are_deterministic_algorithms_enabled()
    for name in ("torch._dynamo", "torch._inductor"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="_dynamo"):
        after_steps(torch.optim.SGD)
    with reproducible(deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        weights, state = after_steps(PlainSGD)
    assert torch.are_deterministic_algorithms_enabled() == before
    assert all(torch.equal(weight, wanted) for weight, wanted in zip(weights, expected, strict=True))
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)


def test_frozen_parameters_are_left_out() -> None:
    """A parameter that takes no gradient is in no group, and a group without parameters is not made."""
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = parameter_groups(model, TrainingOptions())
    assert group["params"] == [model.weight]


def test_without_an_optimizer_it_is_sgd_with_the_fingerprint_of_before() -> None:
    """The key that came later changes nothing where it is not used, and the plan where it is."""
    made = make_optimizer(Scalars(), TrainingOptions())
    assert type(made) is PlainSGD
    assert all(group["fused"] for group in made.param_groups)

    def fingerprint(**training: object) -> str:
        runs = {"rit": {"label": "RI-T", "tasks": ["toy"], "training": training}}
        tasks = {"toy": {"format": "image_folder", "root": "toy"}}
        none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
        return make_plan({"tasks": tasks, "runs": runs, "analyses": none}).runs["toy.rit_1"].fingerprint

    assert fingerprint() == fingerprint(optimizer=None)
    assert fingerprint() != fingerprint(optimizer={"name": "SGD"})
    assert fingerprint(optimizer={"name": "AdamW"}) != fingerprint(optimizer={"name": "AdamW", "betas": [0.8, 0.9]})


def test_optimizers_of_torch_take_one_step_as_torchs_own() -> None:
    """By name with its options, the decay of the training, and the slow group of Fixup's scalars."""
    options = TrainingOptions.model_validate(
        {"lr": 0.02, "weight_decay": 0.1, "optimizer": {"name": "AdamW", "betas": [0.5, 0.9], "amsgrad": True}}
    )
    torch.manual_seed(0)
    model, twin = Scalars(), Scalars()
    twin.load_state_dict(model.state_dict())
    slow = [twin.bias1a, twin.scale]
    fast = [twin.fc.weight, twin.fc.bias, twin.temperature]
    groups = [{"params": fast, "lr": 0.02}, {"params": slow, "lr": 0.002}]
    expected = torch.optim.AdamW(groups, betas=(0.5, 0.9), amsgrad=True, weight_decay=0.1)
    made = make_optimizer(model, options)
    for _ in range(3):
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        set_learning_rate(made, options.lr)
        made.step()
        expected.step()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "AdamV"}, "torch.optim has no 'AdamV' for trainings: near matches are .*AdamW"),
        ({"name": "LBFGS"}, "torch.optim has no 'LBFGS' for trainings"),
        ({"name": "AdamW", "beta": [0.9, 0.99]}, "AdamW has no option 'beta': near matches are betas"),
        ({"name": "AdamW", "betas": [0.9, 1.5]}, r"AdamW refuses its options .*betas.*1.5"),
        ({"name": "AdamW", "betas": [0.9]}, r"AdamW refuses its options .*betas"),
    ],
)
def test_wrong_optimizers_are_one_line(optimizer: dict[str, object], message: str) -> None:
    """The name or the option at fault, and what is near."""
    with pytest.raises(UserError, match=message):
        make_optimizer(Scalars(), TrainingOptions.model_validate({"optimizer": optimizer}))


@pytest.mark.parametrize("option", ["lr", "weight_decay"])
def test_what_the_training_says_is_not_said_again(option: str) -> None:
    """One key for one thing."""
    with pytest.raises(ValueError, match=f"{option} does not stand here"):
        TrainingOptions.model_validate({"optimizer": {"name": "AdamW", option: 0.1}})
