"""RegMean: linear layers merged so that their outputs on each candidate's inputs are kept (Jin et al. 2023).

*Dataless Knowledge Fusion by Merging Weights of Language Models*, arXiv 2212.09849. A convolution is a linear map of
patches, so it is merged in the same way, group by group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.merging.candidates import check_candidates, mean_tensor
from transferscope.analysis.merging.gram_strips import (
    GramStrip,
    factor,
    in_a_file,
    solve_factored,
    strips_of,
    zeros_in_a_file,
)
from transferscope.analysis.states import State, write_state
from transferscope.models.layers import evaluation_mode
from transferscope.models.linear_calls import PLAIN_FORWARDS
from transferscope.system.errors import UserError

AT_LEAST = 32 << 20
"""Bytes of Gram matrices that a pass may take, however small the network is."""
PIECE = 1 << 19
"""Numbers of a layer's inputs that are cut into patches, and converted to float64, at a time."""
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
        batches: Network inputs of each candidate, the same in every pass; labels are not used.

    Raises UserError as `check_candidates` does, for a part outside [0, 1], where there are not batches for each
    candidate, and where they are empty; OSError where the disk is full.

    Memory: the network, and as many bytes again (more for one below 32 MiB) for what is summed or returned, including a
    few copies of the largest tensor in float64; and the patches of one image, or a few MiB. Gram matrices are summed in
    strips, as many in a pass over all images as fit; the others, and what waits to be solved or returned, lie in files
    without names.
    """
    check_candidates(states)
    if len(batches) != len(states):
        raise UserError(f"images of {len(batches)} networks for {len(states)} candidates: give some for each")
    if not 0 <= non_diagonal <= 1:
        raise UserError(f"non_diagonal is {non_diagonal}: give a number from 0 to 1, such as 0.9")
    budget = _budget([states[0][key].shape.numel() for key in states[0]])
    solved: dict[str, Tensor] = {}
    for part in _passes(_linear_maps(model, budget // 4), budget):
        _sum_strips(model, states, batches, non_diagonal, part)
        for one, strips in part:
            if one.is_complete:
                solved[one.key] = in_a_file(_solution(one, states))
                one.release()
            else:
                for strip in strips:
                    strip.set_aside()
    return {
        key: solved[key].to(tensor.device, copy=True) if key in solved else mean_tensor(states, key)
        for key, tensor in states[0].items()
    }


def _budget(sizes: Sequence[int]) -> int:
    """Bytes of Gram matrices in a pass: those of a network in float32, less three of its tensors in float64."""
    return max(AT_LEAST, 4 * sum(sizes) - 3 * 8 * max(sizes, default=0))


@dataclass
class _Map:
    """A linear map of a network: its tensor, what gives the inputs that it multiplies, and their Gram matrices."""

    layer: str
    key: str
    inputs: Callable[[tuple[Tensor, ...]], Iterator[Tensor]]
    """(groups, inputs, examples) in float64, piece by piece, of what the layer is called with."""
    strips: list[GramStrip]
    pulled: Tensor = field(default_factory=lambda: torch.empty(0))
    """Sum of G_i (W_i - M) with the mean M of the weights: (groups, inputs, outputs of a group), float64, in a file."""

    @property
    def is_complete(self) -> bool:
        """True if all strips have been summed."""
        return all(strip.values.numel() for strip in self.strips)

    def release(self) -> None:
        """Give the memory of the strips and the sum back."""
        for strip in self.strips:
            strip.values = torch.empty(0)
        self.strips, self.pulled = [], torch.empty(0)

    def grouped(self, weight: Tensor) -> Tensor:
        """(groups, inputs, outputs of a group)."""
        first = self.strips[0]
        return weight.reshape(first.groups, -1, first.size).mT


_Part = list[tuple[_Map, list[GramStrip]]]
"""Strips that are summed in one pass over the images."""


def _linear_maps(model: nn.Module, largest: int) -> list[_Map]:
    """Layers whose weight is theirs alone, with strips of at most `largest` bytes."""
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    maps = []
    for name, layer in model.named_modules():
        made = _map_of(name, layer, largest)
        if made is not None and uses[id(model.get_parameter(made.key))] == 1:
            maps.append(made)
    return maps


def _map_of(name: str, layer: nn.Module, largest: int) -> _Map | None:
    prefix = f"{name}." if name else ""
    if isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
        return _Map(name, f"{prefix}in_proj_weight", _own_query, strips_of(layer.embed_dim, 1, largest))
    if type(layer).forward not in PLAIN_FORWARDS:
        return None
    if isinstance(layer, nn.Linear):
        strips = strips_of(layer.in_features, 1, largest)
        return _Map(name, f"{prefix}weight", lambda given: _vectors(given[0]), strips)
    if isinstance(layer, nn.Conv2d):
        strips = strips_of(layer.weight[0].numel(), layer.groups, largest)
        return _Map(name, f"{prefix}weight", lambda given: _patches(layer, given[0]), strips)
    return None


def _vectors(given: Tensor) -> Iterator[Tensor]:
    for part in given.reshape(-1, given.shape[-1]).split(max(1, PIECE // given.shape[-1])):
        yield part.double().mT[None]


def _own_query(given: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Inputs of self-attention; none of attention to something else, whose inputs are several."""
    query, key, value = given[:3] if len(given) > 2 else (None, None, None)
    if query is not None and query is key and key is value:
        yield from _vectors(query)


def _patches(layer: nn.Conv2d, images: Tensor) -> Iterator[Tensor]:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = layer.groups * layer.weight[0].numel()
    places = images.shape[2] * images.shape[3] // math.prod(layer.stride)
    for some in images.split(max(1, PIECE // (inputs * max(1, places)))):
        padded = F.pad(some, layer._reversed_padding_repeated_twice, mode=mode)
        columns = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
        parts = columns.unflatten(1, (layer.groups, -1))  # (images, groups, inputs, places)
        for piece in parts.permute(1, 2, 0, 3).flatten(2).split(max(1, PIECE // inputs), dim=2):
            yield piece.double()


def _passes(maps: Sequence[_Map], budget: int) -> Iterator[_Part]:
    """Strips in order, so many at once that they take no more than `budget` bytes."""
    part: _Part = []
    used = 0
    for one in maps:
        for strip in one.strips:
            if part and used + strip.num_bytes > budget:
                yield part
                part, used = [], 0
            if not part or part[-1][0] is not one:
                part.append((one, []))
            part[-1][1].append(strip)
            used += strip.num_bytes
    if part:
        yield part


def _sum_strips(
    model: nn.Module, states: Sequence[State], batches: Sequence[Batches], non_diagonal: float, part: _Part
) -> None:
    """Sum the strips over all candidates, and what they contribute to the sum of G_i (W_i - M).

    The Gram matrix of a single candidate is not kept. With S_i = G_1 + ... + G_i, which is there when the images of
    candidate i have passed, that sum is S_1 (W_1 - W_2) + S_2 (W_2 - W_3) + ... + S_K (W_K - M). It is exactly 0 for
    equal candidates, which so stay what they are.
    """
    device = next(model.parameters()).device
    for _, strips in part:
        for strip in strips:
            strip.begin(device)
    for place, (state, images) in enumerate(zip(states, batches, strict=True)):
        write_state(model, state)
        count = 0
        with torch.no_grad(), evaluation_mode(model), _watched(model, part):
            for inputs, _ in iterate(images):
                model(inputs)
                count += len(inputs)
        if count == 0:
            raise UserError("RegMean needs images of each candidate: the batches are empty")
        for one, strips in part:
            moved = one.grouped(_less_the_next(states, place, one.key)).to(device)
            if not one.pulled.numel():
                one.pulled = zeros_in_a_file(moved.shape, torch.float64)
            for strip in strips:
                strip.add_product(moved, non_diagonal, one.pulled)
    for _, strips in part:
        for strip in strips:
            strip.scale_off_diagonal(non_diagonal)


def _less_the_next(states: Sequence[State], place: int, key: str) -> Tensor:
    """A candidate's weight less that of the next one, or the last one's less the mean, in float64."""
    other = states[place + 1][key].detach() if place + 1 < len(states) else mean_tensor(states, key)
    return states[place][key].detach().to(torch.float64, copy=True).sub_(other)


@contextmanager
def _watched(model: nn.Module, part: _Part) -> Iterator[None]:
    """Inside, every call of the layers adds to their strips."""

    def add(
        one: _Map, strips: Sequence[GramStrip], _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> None:
        for inputs in one.inputs(given or tuple(named.values())):
            for strip in strips:
                strip.add(inputs)

    handles = [
        model.get_submodule(one.layer).register_forward_pre_hook(partial(add, one, strips), with_kwargs=True)
        for one, strips in part
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _solution(one: _Map, states: Sequence[State]) -> Tensor:
    """M + (sum_i G_i)^-1 sum_i G_i (W_i - M), or the mean M where the layer had no input; strips are overwritten."""
    mean = mean_tensor(states, one.key).cpu()
    diagonal = torch.cat([strip.diagonal().cpu() for strip in one.strips], dim=1)
    if not bool(diagonal.any()):
        return mean
    ridge = (RIDGE * diagonal.mean(dim=1, keepdim=True)).clamp(min=torch.finfo(torch.float64).tiny)
    for strip in one.strips:
        strip.diagonal().add_(ridge.to(strip.values.device))
    device = one.strips[-1].values.device
    factor(one.strips, device)
    moved = solve_factored(one.strips, one.pulled.to(device)).cpu().mT.reshape(mean.shape)
    return moved.add_(mean).to(mean.dtype)
