"""Fisher information, RegMean and aligned averages, which put images through networks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.alignment import permutation_groups, permute, rescale
from transferscope.analysis.merging import (
    align_to_first,
    aligned_average,
    diagonal_fisher,
    gram_strips,
    regmean,
    regression_mean,
    rescaled_average,
    uniform_soup,
)
from transferscope.models import build_model
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 3, 8, 8, generator=GENERATOR)
NONE = torch.zeros(24, dtype=torch.int64)


def clones(model: nn.Module, count: int, spread: float = 0.2) -> list[dict[str, Tensor]]:
    """States near the model's own."""
    generator = torch.Generator().manual_seed(1)
    return [
        {
            key: tensor
            + spread * torch.randn(tensor.shape, generator=generator) * tensor.std(correction=0).nan_to_num(0.1)
            if tensor.is_floating_point() and "running" not in key
            else tensor.clone()
            for key, tensor in model.state_dict().items()
        }
        for _ in range(count)
    ]


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding="same", bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3, dilation=1), nn.ReLU(),
        nn.Conv2d(6, 4, 2, padding=1, padding_mode="reflect"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


def test_fisher_is_the_mean_square_of_gradients() -> None:
    """With one y drawn of each prediction it is the mean of the squared gradients of log p(y|x), image by image."""
    model = convolutions().eval()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    fisher = diagonal_fisher(model, [(IMAGES[:5], NONE[:5]), (IMAGES[5:9], NONE[5:9])], seed=3)
    twin = copy.deepcopy(model).requires_grad_(True)
    generator = torch.Generator().manual_seed(3)
    expected = {name: torch.zeros_like(parameter) for name, parameter in twin.named_parameters()}
    for image in IMAGES[:9]:
        logits = twin(image[None])
        label = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[0, 0]
        for (name, _), gradient in zip(
            twin.named_parameters(),
            torch.autograd.grad(logits.log_softmax(1)[0, label], list(twin.parameters())),
            strict=True,
        ):
            expected[name] += gradient.square() / 9
    assert fisher.keys() == expected.keys()
    assert all(torch.allclose(fisher[name], value, rtol=1e-4, atol=1e-9) for name, value in expected.items())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fisher_of_findings_and_shared_weights() -> None:
    """For a logistic model of single numbers it is E x^2 p (1 - p), and a shared tensor has it under both names."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.7)
    inputs = torch.linspace(-2, 2, 4000)[:, None]
    fisher = diagonal_fisher(model, [(inputs, inputs)], multi_label=True)["weight"].item()
    p = torch.sigmoid(0.7 * inputs)
    assert fisher == pytest.approx(float((inputs.square() * p * (1 - p)).mean()), rel=0.08)
    shared = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    shared[2].weight = shared[0].weight
    both = diagonal_fisher(shared, [(torch.randn(4, 3), NONE[:4])])
    assert torch.equal(both["0.weight"], both["2.weight"])
    with pytest.raises(UserError, match="needs images"):
        diagonal_fisher(model, [])


def test_regmean_of_a_linear_model_is_least_squares() -> None:
    """Merged is the W that minimises sum_i |X_i W - X_i W_i|^2, as NumPy's lstsq finds it from all rows at once."""
    model = nn.Linear(6, 4, bias=False)
    generator = torch.Generator().manual_seed(2)
    candidates = [{"weight": torch.randn(4, 6, generator=generator)} for _ in range(3)]
    inputs = [
        torch.randn(size, 6, generator=generator) @ torch.randn(6, 6, generator=generator) for size in (9, 20, 14)
    ]
    batches = [[(rows[:5], rows[:5]), (rows[5:], rows[5:])] for rows in inputs]
    merged = regmean(model, candidates, batches, non_diagonal=1.0)["weight"]
    rows = torch.cat(inputs).double().numpy()
    targets = torch.cat([x @ state["weight"].T for x, state in zip(inputs, candidates, strict=True)]).double().numpy()
    import numpy as np

    expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    assert np.allclose(merged.numpy(), expected, atol=1e-4)


def formula(gram: list[Tensor], weights: list[Tensor], non_diagonal: float) -> Tensor:
    """Section 3 of the paper: (sum G_i)^-1 sum G_i W_i^T, with G_i's off-diagonal scaled."""
    scaled = [non_diagonal * g + (1 - non_diagonal) * torch.diag(g.diagonal()) for g in gram]
    right = sum(g @ w.T.double() for g, w in zip(scaled, weights, strict=True))
    return torch.linalg.solve(sum(scaled), right).T.float()


def test_regmean_of_convolutions_is_its_formula() -> None:
    """Each group of a convolution is merged as a linear map of patches, which F.unfold cuts out of the padded input."""
    model = convolutions().eval()
    candidates = clones(model, 2)
    images = [IMAGES[:12], IMAGES[12:]]
    merged = regmean(convolutions(), candidates, [[(x, NONE[:12])] for x in images], non_diagonal=0.9)
    inside: list[dict[str, Tensor]] = []
    for state, x in zip(candidates, images, strict=True):
        model.load_state_dict(state)
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, layer in model.named_children():
                seen[name] = x
                x = layer(x)
        inside.append(seen)
    patches = [F.unfold(one["0"], 3, padding=1).transpose(1, 2).flatten(0, 1).double() for one in inside]
    expected = formula([p.T @ p for p in patches], [state["0.weight"].flatten(1) for state in candidates], 0.9)
    assert torch.allclose(merged["0.weight"].flatten(1), expected, atol=1e-3)
    for group in range(3):
        part = slice(2 * group, 2 * group + 2)
        patches = [
            F.unfold(one["3"][:, part], 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1).double() for one in inside
        ]
        expected = formula(
            [p.T @ p for p in patches], [state["3.weight"][part].flatten(1) for state in candidates], 0.9
        )
        assert torch.allclose(merged["3.weight"][part].flatten(1), expected, atol=1e-3)
    padded = [
        F.unfold(F.pad(one["5"], (1, 1, 1, 1), mode="reflect"), 2).transpose(1, 2).flatten(0, 1).double()
        for one in inside
    ]
    expected = formula([p.T @ p for p in padded], [state["5.weight"].flatten(1) for state in candidates], 0.9)
    assert torch.allclose(merged["5.weight"].flatten(1), expected, atol=1e-3)
    mean = uniform_soup(candidates)
    assert all(torch.equal(merged[key], mean[key]) for key in mean if key.endswith("bias") or key.startswith("1."))


class Attention(nn.Module):
    """A self-attention and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.fc(mixed.mean(1))


@pytest.mark.parametrize("model", [convolutions(), Attention(), nn.Linear(6, 3)])
def test_regmean_identities(model: nn.Module) -> None:
    """Equal candidates stay what they are, the order changes rounding alone, and equal inputs of a layer give the mean."""
    inputs = (
        IMAGES
        if isinstance(model, nn.Sequential)
        else torch.randn(24, 5, 6, generator=torch.Generator().manual_seed(1))
    )
    batches = [(inputs, NONE)]
    one, two = clones(model, 2)
    assert all(torch.equal(value, one[key]) for key, value in regmean(model, [one, one], [batches, batches]).items())
    assert all(torch.equal(value, one[key]) for key, value in regmean(model, [one], [batches]).items())
    forth, back = (regmean(model, pair, [batches, batches]) for pair in ([one, two], [two, one]))
    assert all(torch.allclose(forth[key], back[key], atol=1e-5) for key in forth)
    first = {"Attention": "attention.in_proj_weight", "Linear": "weight"}.get(type(model).__name__, "0.weight")
    assert torch.allclose(forth[first], uniform_soup([one, two])[first], atol=1e-4)
    last = "fc.weight" if isinstance(model, Attention) else "8.weight"
    if last in forth:
        assert not torch.allclose(forth[last], uniform_soup([one, two])[last], atol=1e-4)


@pytest.mark.parametrize("model", [convolutions(), nn.Linear(8, 3)])
def test_regmean_in_many_passes(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of two rows, of which a few at a time fit, and inputs in pieces change rounding alone, and no candidate."""
    inputs = IMAGES if isinstance(model, nn.Sequential) else torch.randn(24, 5, 8, generator=GENERATOR)
    states = [{key: tensor.double() for key, tensor in state.items()} for state in clones(model, 3)]
    before = copy.deepcopy(states)
    batches = [[(inputs[:10] + place, NONE[:10]), (inputs[10:], NONE[10:])] for place in range(3)]
    expected = regmean(model, states, batches)
    passes = []
    monkeypatch.setattr(gram_strips, "TALLEST", 2)
    monkeypatch.setattr(regression_mean, "AT_LEAST", 0)
    monkeypatch.setattr(regression_mean, "PIECE", 40)
    summed = regression_mean._sum_strips
    monkeypatch.setattr(regression_mean, "_sum_strips", lambda *given: (passes.append(given[-1]), summed(*given)))
    size = sum(tensor.nbytes for tensor in states[0].values())
    merged = regmean(model, states, batches)
    assert all(torch.allclose(merged[key], value, rtol=1e-6, atol=1e-7) for key, value in expected.items())
    assert all(torch.equal(state[key], kept[key]) for state, kept in zip(states, before, strict=True) for key in kept)
    assert len(passes) > 1
    assert max(sum(strip.num_bytes for _, strips in part for strip in strips) for part in passes) <= size
    assert any(part[-1][0] is after[0][0] for part, after in itertools.pairwise(passes))  # a matrix in two parts


def test_regmean_leaves_what_no_input_has() -> None:
    """With fewer examples than inputs it is the least-squares solution that is nearest to the mean of the candidates."""
    model = nn.Linear(20, 4, bias=False)
    generator = torch.Generator().manual_seed(3)
    candidates = [{"weight": torch.randn(4, 20, generator=generator)} for _ in range(2)]
    inputs = [torch.randn(size, 20, generator=generator) + 2 for size in (3, 6)]
    merged = regmean(model, candidates, [[(rows, rows)] for rows in inputs], non_diagonal=1.0)["weight"]
    mean = (candidates[0]["weight"] + candidates[1]["weight"]).double() / 2
    moved = [x.double() @ (state["weight"] - mean).T for x, state in zip(inputs, candidates, strict=True)]
    expected = mean + (torch.linalg.pinv(torch.cat(inputs).double()) @ torch.cat(moved)).T
    assert torch.allclose(merged.double(), expected, atol=1e-5)


def test_regmean_faults() -> None:
    """Images for another number of candidates, none at all, and a part outside [0, 1] are one clear line."""
    model = nn.Linear(6, 3)
    state = dict(model.state_dict())
    for batches, part, message in (
        ([], 0.9, "images of 0 networks for 1"),
        ([[]], 0.9, "needs images"),
        ([[]], 1.1, "non_diagonal is 1.1"),
    ):
        with pytest.raises(UserError, match=message):
            regmean(model, [state], batches, non_diagonal=part)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("fixup_resnet_small", {"widths": [4, 8, 8]}, 16),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 3}, 32),
    ],
)
def test_aligned_average_of_permuted_copies(name: str, options: dict, side: int) -> None:
    """The aligned average of a network and permuted copies of it is the network; the plain one is another function."""
    model = build_model(name, 5, seed=0, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=GENERATOR)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images = torch.randn(4, 3, side, side, generator=GENERATOR)
    groups = permutation_groups(model, images[:2])
    copies = [state, *(permute(groups, groups.random(seed), state) for seed in (1, 2))]
    permutations = align_to_first(groups, copies)
    merged = aligned_average(groups, copies, permutations)
    assert all(torch.allclose(merged[key].float(), value.float(), atol=1e-6) for key, value in state.items())
    assert not all(
        torch.allclose(uniform_soup(copies)[key].float(), value.float(), atol=1e-3) for key, value in state.items()
    )
    identities = [groups.identity()] * 3
    assert all(
        torch.equal(value, uniform_soup(copies)[key])
        for key, value in aligned_average(groups, copies, identities).items()
    )


def test_rescaled_average_is_rescale_of_two() -> None:
    """For two candidates the correction is `rescale` half-way, and one candidate stays as it is."""
    model = build_model("fixup_resnet_small", 5, seed=0, widths=[4, 8, 8]).eval()
    one, two = clones(model, 2, spread=1.0)
    batches = [(torch.randn(16, 3, 16, 16, generator=GENERATOR), NONE[:16])]
    groups = permutation_groups(model, batches[0][0][:2])
    identities = [groups.identity()] * 2
    average = rescaled_average(model, groups, [one, two], identities, batches).state
    expected = rescale(model, one, two, batches).state
    assert all(torch.allclose(average[key], expected[key], atol=1e-6) for key in expected)
    assert not torch.allclose(average["conv1.weight"], uniform_soup([one, two])["conv1.weight"], atol=1e-4)
    alone = rescaled_average(model, groups, [one], identities[:1], batches).state
    assert all(torch.allclose(alone[key], one[key], atol=1e-5) for key in one)
