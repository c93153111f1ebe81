from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.evaluator import (
    Evaluator,
    accuracy_and_loss,
    per_example,
    prepare,
    resident_batches,
    streamed_batches,
)
from transferscope.analysis.interpolation import interpolate_into
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (11, 3, 8, 8), dtype=torch.uint8, generator=GENERATOR)
LABELS = torch.randint(0, 4, (11,), generator=GENERATOR)


def transform(images: Tensor) -> Tensor:
    return (images.float() - 128) / 64


def make_net() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(180, 4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return net


@pytest.mark.parametrize("make", [resident_batches, streamed_batches])
def test_evaluator_equals_one_plain_pass(make: object) -> None:
    """Whatever the batches, the logits are those of the whole set in eval mode, in order, each example once."""
    evaluate = Evaluator(make(IMAGES, LABELS, transform, batch_size=4))  # type: ignore[operator]
    net = make_net()
    for _ in range(2):
        logits, labels = evaluate.logits_and_labels(net)
        assert torch.equal(labels, LABELS)
        torch.testing.assert_close(logits, make_net().eval()(transform(IMAGES)))
    expected = F.cross_entropy(logits, LABELS).item()
    assert evaluate(net)["loss"] == pytest.approx(expected, rel=1e-6)
    assert evaluate(net)["accuracy"] == pytest.approx((logits.argmax(1) == LABELS).float().mean().item())


def test_evaluator_follows_weights_changed_in_place() -> None:
    """Also in bfloat16, where a shadow model computes: it is refreshed at every call, and close to float32."""
    for precision in ("float32", "bfloat16"):
        net, evaluate = make_net(), Evaluator(resident_batches(IMAGES, LABELS, transform), precision=precision)
        first = evaluate(net)["loss"]
        with torch.no_grad():
            net[4].weight.mul_(3)
        second, expected = evaluate(net)["loss"], Evaluator(resident_batches(IMAGES, LABELS, transform))(net)["loss"]
        assert abs(second - first) > 0.05
        assert second == pytest.approx(expected, rel=0.03)


def test_evaluator_takes_other_metrics() -> None:
    """The function sees all logits and labels at once."""
    evaluate = Evaluator(
        resident_batches(IMAGES, LABELS, transform, batch_size=3), lambda a, b: {"n": float(len(a) + len(b))}
    )
    assert evaluate(prepare(make_net())) == {"n": 22.0}


def test_unknown_precision_is_refused() -> None:
    """The choices are named."""
    with pytest.raises(UserError, match="float32, bfloat16"):
        Evaluator([], precision="int4")


def test_batches_need_as_many_labels() -> None:
    """Empty or unequal parts are refused."""
    for images, labels in ((IMAGES, LABELS[:3]), (IMAGES[:0], LABELS[:0])):
        with pytest.raises(UserError, match="images and"):
            resident_batches(images, labels, transform)


def test_non_finite_logits_are_wrong_not_class_0() -> None:
    """A network that has overflowed gets no accuracy from the arg-max of NaN, and its loss is NaN."""
    logits = torch.tensor([[math.nan, 0.0], [5.0, 0.0], [math.inf, 0.0]])
    metrics = accuracy_and_loss(logits, torch.tensor([0, 0, 0]))
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert math.isnan(metrics["loss"])


def test_unknown_labels_count_for_nothing() -> None:
    """Multi-label metrics over known labels by hand; none known gives NaN."""
    logits = torch.tensor([[2.0, -1.0], [3.0, 0.5]])
    labels = torch.tensor([[1, 0], [-1, 0]], dtype=torch.int8)
    metrics = accuracy_and_loss(logits, labels)
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(0.5))]
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert math.isnan(accuracy_and_loss(logits, torch.full((2, 2), -1, dtype=torch.int8))["loss"])


def test_per_example_values_sum_to_the_metrics() -> None:
    """What the bootstrap over examples resamples is what the metrics average."""
    logits = make_net().eval()(transform(IMAGES)).detach()
    correct, losses, known = per_example(logits, LABELS)
    assert correct.shape == losses.shape == known.shape == (11,)
    metrics = accuracy_and_loss(logits, LABELS)
    assert metrics == {"accuracy": correct.mean().item(), "loss": pytest.approx(losses.mean().item())}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_network_is_compiled_once_for_each_shape(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are written in place along a line take no other graph; a backend without code gives equal values."""
    graphs: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(next(tuple(value.shape) for value in inputs if value.dim() == 4 and value.shape[1:] == (3, 8, 8)))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    batches = resident_batches(IMAGES, LABELS, transform, batch_size=4)  # 4, 4 and 3
    plain, compiled = (Evaluator(batches, precision=precision, compiled=compiled) for compiled in (False, True))
    nets, ends = [make_net() for _ in range(2)], [dict(make_net().state_dict()) for _ in range(2)]
    ends[1] = {key: 1.5 * value for key, value in ends[1].items()}
    for alpha in (0.0, 0.25, 0.5, 1.0):
        for net in nets:
            interpolate_into(net, *ends, alpha)
        assert torch.equal(compiled.logits_and_labels(nets[0])[0], plain.logits_and_labels(nets[1])[0])
    assert sorted(graphs) == [(3, 3, 8, 8), (4, 3, 8, 8)]
