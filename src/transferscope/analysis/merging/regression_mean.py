"""RegMean: linear layers merged so that their outputs on each candidate's inputs are kept (Jin et al. 2023).

*Dataless Knowledge Fusion by Merging Weights of Language Models*, arXiv 2212.09849. A convolution is a linear map of
patches, so it is merged in the same way, group by group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.merging.candidates import check_candidates, mean_tensor
from transferscope.analysis.states import State, write_state
from transferscope.models.layers import evaluation_mode
from transferscope.models.linear_calls import PLAIN_FORWARDS
from transferscope.system.errors import UserError

AT_LEAST = 128 << 20
"""Bytes of Gram matrices that a pass may take, however small the network is."""
ROWS = 256
"""Rows of a Gram matrix that are computed at a time, in float32 and float64, before they are added to it."""
RIDGE = 1e-7
"""Added to the diagonal, as a part of its mean: directions that no input has stay at the mean of the candidates."""


def regmean(
    model: nn.Module, states: Sequence[State], batches: Sequence[Batches], *, non_diagonal: float = 0.9
) -> dict[str, Tensor]:
    """(sum_i G_i)^-1 sum_i G_i W_i for every linear layer and convolution (section 3.2); all else is averaged.

    G_i is the Gram matrix X_i^T X_i of the layer's inputs under candidate i on its own images, with what is not on the
    diagonal multiplied by `non_diagonal` (section 3.3: 0.9; with 1 it is the least-squares solution). Biases and
    normalisation are averaged as in the paper, and so are layers that compute their weight themselves, transposed and
    one- and three-dimensional convolutions. The fused projection of `nn.MultiheadAttention` is merged where it attends
    to itself.

    Args:
        model: The architecture; its weights are overwritten.
        batches: Network inputs of each candidate; labels are not used.

    Raises UserError as `check_candidates` does, for a part outside [0, 1], where there are not batches for each
    candidate, and where they are empty. Memory: the network, the result, and of some layers the Gram matrices and
    three tensors like their weights, which take no more than the network, what a single layer needs, or 128 MiB; each
    such set of layers takes a pass over all images. All are in float64, Gram matrices as many numbers as a layer has
    inputs, squared, and the solution needs all of them at once.
    """
    check_candidates(states)
    if len(batches) != len(states):
        raise UserError(f"images of {len(batches)} networks for {len(states)} candidates: give some for each")
    if not 0 <= non_diagonal <= 1:
        raise UserError(f"non_diagonal is {non_diagonal}: give a number from 0 to 1, such as 0.9")
    solved: dict[str, Tensor] = {}
    for maps in _portions(_linear_maps(model), max(AT_LEAST, sum(tensor.nbytes for tensor in states[0].values()))):
        solved |= _solve(model, states, batches, non_diagonal, maps)
    return {key: solved[key] if key in solved else mean_tensor(states, key) for key in states[0]}


@dataclass
class _Map:
    """A linear map of a network: its tensor, and what gives the rows (groups, rows, inputs) that it multiplies."""

    layer: str
    key: str
    groups: int
    num_inputs: int
    num_weights: int
    rows: Callable[[tuple[Tensor, ...]], Tensor | None]
    mean: Tensor = field(default_factory=lambda: torch.empty(0))
    gram: Tensor = field(default_factory=lambda: torch.empty(0))
    pulled: Tensor = field(default_factory=lambda: torch.empty(0))
    moved: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def num_bytes(self) -> int:
        """Of the Gram matrices, and of the mean weight and two sums like it."""
        return 8 * (self.groups * self.num_inputs**2 + 3 * self.num_weights)

    def grouped(self, weight: Tensor) -> Tensor:
        """(groups, inputs, outputs of a group), float64."""
        return weight.detach().double().reshape(self.groups, -1, self.num_inputs).transpose(1, 2)


def _linear_maps(model: nn.Module) -> list[_Map]:
    """Layers whose weight is theirs alone."""
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    maps = []
    for name, layer in model.named_modules():
        made = _map_of(name, layer)
        if made is not None and uses[id(model.get_parameter(made.key))] == 1:
            maps.append(made)
    return maps


def _map_of(name: str, layer: nn.Module) -> _Map | None:
    prefix = f"{name}." if name else ""
    if isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
        number = layer.in_proj_weight.numel()
        return _Map(name, f"{prefix}in_proj_weight", 1, layer.embed_dim, number, _own_query)
    if type(layer).forward not in PLAIN_FORWARDS:
        return None
    if isinstance(layer, nn.Linear):
        number = layer.weight.numel()
        return _Map(name, f"{prefix}weight", 1, layer.in_features, number, lambda given: given[0].flatten(0, -2)[None])
    if isinstance(layer, nn.Conv2d):
        inputs = layer.weight[0].numel()
        number = layer.weight.numel()
        return _Map(name, f"{prefix}weight", layer.groups, inputs, number, lambda given: _patches(layer, given[0]))
    return None


def _own_query(given: tuple[Tensor, ...]) -> Tensor | None:
    """Rows of self-attention; None of attention to something else, whose inputs are several."""
    query, key, value = given[:3] if len(given) > 2 else (None, None, None)
    return query.flatten(0, -2)[None] if query is not None and query is key and key is value else None


def _patches(layer: nn.Conv2d, images: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(images, layer._reversed_padding_repeated_twice, mode=mode)
    columns = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    parts = columns.unflatten(1, (layer.groups, -1))  # (images, groups, inputs, places)
    return parts.permute(1, 0, 3, 2).flatten(1, 2)


def _portions(maps: Sequence[_Map], budget: int) -> Iterator[list[_Map]]:
    """Maps in order, so many at once that they take no more than `budget` bytes."""
    chosen: list[_Map] = []
    for one in maps:
        if chosen and sum(other.num_bytes for other in chosen) + one.num_bytes > budget:
            yield chosen
            chosen = []
        chosen.append(one)
    if chosen:
        yield chosen


def _solve(
    model: nn.Module,
    states: Sequence[State],
    batches: Sequence[Batches],
    non_diagonal: float,
    maps: Sequence[_Map],
) -> dict[str, Tensor]:
    """The solutions of the maps' tensors.

    With W_i = M + D_i around the mean M it is M + (sum G_i)^-1 sum G_i D_i, where G_i D_i is summed batch by batch, so
    that no Gram matrix of a single candidate is kept and equal candidates stay what they are.
    """
    device = next(model.parameters()).device
    for one in maps:
        one.gram = torch.zeros(one.groups, one.num_inputs, one.num_inputs, dtype=torch.float64, device=device)
        one.mean = mean_tensor(states, one.key)
        one.pulled = torch.zeros_like(one.grouped(one.mean)).to(device)
    for state, images in zip(states, batches, strict=True):
        write_state(model, state)
        for one in maps:
            one.moved = (one.grouped(state[one.key]) - one.grouped(one.mean)).to(device)
        count = 0
        with torch.no_grad(), evaluation_mode(model), _watched(model, maps, non_diagonal):
            for inputs, _ in iterate(images):
                model(inputs)
                count += len(inputs)
        if count == 0:
            raise UserError("RegMean needs images of each candidate: the batches are empty")
    solved = {}
    for one in maps:
        solved[one.key] = _solution(one)
        one.mean = one.gram = one.pulled = one.moved = torch.empty(0)
    return solved


@contextmanager
def _watched(model: nn.Module, maps: Sequence[_Map], non_diagonal: float) -> Iterator[None]:
    """Inside, every call of the layers adds to their Gram matrices."""

    def add(one: _Map, given: tuple[Tensor, ...]) -> None:
        rows = one.rows(given)
        if rows is None:
            return
        for start in range(0, one.num_inputs, ROWS):
            part = slice(start, start + ROWS)
            gram = (rows[..., part].transpose(1, 2) @ rows).double()
            diagonal = gram.diagonal(start, dim1=1, dim2=2).clone()
            gram.mul_(non_diagonal).diagonal(start, dim1=1, dim2=2).copy_(diagonal)
            one.gram[:, part] += gram
            one.pulled[:, part] += gram @ one.moved

    handles = []
    for one in maps:
        layer = model.get_submodule(one.layer)
        handles.append(
            layer.register_forward_pre_hook(
                lambda _, given, named, one=one: add(one, given or tuple(named.values())), with_kwargs=True
            )
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _solution(one: _Map) -> Tensor:
    """The mean where the layer had no input at all; the Gram matrix is overwritten."""
    diagonal = one.gram.diagonal(dim1=1, dim2=2)
    if not bool(diagonal.any()):
        return one.mean
    diagonal += RIDGE * diagonal.mean(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    factors, pivots = one.gram.mT, torch.empty(0, dtype=torch.int32, device=one.gram.device)
    torch.linalg.lu_factor(factors, out=(factors, pivots))  # in place, as it is symmetric; `solve` would copy it
    moved = torch.linalg.lu_solve(factors, pivots, one.pulled).transpose(1, 2)
    return (one.mean.double() + moved.reshape(one.mean.shape).to(one.mean.device)).to(one.mean.dtype)
