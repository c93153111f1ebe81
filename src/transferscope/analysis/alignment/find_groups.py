"""Find the permutation groups of a network by following it, and prove them on its output.

Sources: Ainsworth, Hayase, Srinivasa, "Git Re-Basin" (arXiv 2209.04836) for permutation symmetries of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from transferscope.analysis.alignment.follow import follow
from transferscope.analysis.alignment.groups import (
    TOLERANCE,
    Group,
    Order,
    PermutationGroups,
    PermutedAxis,
    apply,
    difference,
    in_one_block,
    shuffle,
)
from transferscope.analysis.alignment.labelled_tensors import Placement
from transferscope.analysis.alignment.structure import Structure, find_structure
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

EXACT = 1e-9
"""The same of a proof in float64."""


def permutation_groups(model: nn.Module, example_input: Tensor) -> PermutationGroups:
    """Find which channels of a network may be permuted without changing its function, from the network itself.

    One forward pass in evaluation mode on the first example is followed operation by operation (`follow`), so no table
    of layers is needed. The axes of input and output stay as they are, and so does what an operation without a rule
    touches (`PermutationGroups.reasons`). The result is proved: with random weights in place of the model's, so that no
    layer is without effect, a random permutation of every group leaves the output as it was.

    Args:
        model: Maps a batch to a tensor, or to several; it is left as it was, and the result keeps a reference to it.
        example_input: (B, ...) floating-point, as the network takes it; one example is used.

    Raises:
        UserError: If the network cannot take the example, if nothing can be permuted, or if the proof fails; names the
            operations that could not be followed.
    """
    name = type(model).__name__
    if not isinstance(example_input, Tensor) or example_input.dim() < 1 or not len(example_input):
        raise UserError(f"permutation_groups of {name}: give a batch of at least one example as the input")
    image = example_input[:1].detach()
    with evaluation_mode(model):
        try:
            tensors, _ = follow(model, image)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            if type(error) is UserError:
                raise
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            shape = tuple(image.shape)
            raise UserError(f"{name} cannot be followed on an input of shape {shape}: {message}") from error
    structure = find_structure(tensors.wires, tensors.placements)
    reasons = tuple(_reasons(structure))
    groups = tuple(_groups(structure, tensors.placements))
    if not groups:
        because = "; ".join(reasons) or "no hidden layer stands between its input and its output"
        raise UserError(f"{name} has no channels that can be permuted: {because}")
    floating = [key for key, tensor in model.state_dict().items() if tensor.is_floating_point()]
    unused = tuple(key for key in floating if key not in tensors.used)
    proved = PermutationGroups(
        groups, model, image, structure, tuple(tensors.placements), tuple(tensors.taps), unused, reasons
    )
    _prove(proved)
    return proved


def _prove(groups: PermutationGroups) -> None:
    name = type(groups.model).__name__
    state, dtype, bound = _generic(groups.model), torch.float64, EXACT
    try:
        output = groups.output(state, dtype=dtype)
    except RuntimeError:  # a network that mixes in float32 numbers of its own
        dtype, bound = torch.float32, TOLERANCE
        output = groups.output(state, dtype=dtype)
    if not output.isfinite().all():
        raise UserError(f"{name}: its output is not finite with random weights, so its groups cannot be proved")
    error = _effect(groups, groups.source(groups.random(1)), state, output)
    del state
    if error <= bound:
        return
    raise UserError(
        f"{name} cannot be permuted: a random permutation changes its output by {error:.1e}; "
        f"one of the operations on {_failing(groups, output, bound)} was not followed correctly"
    )


def _effect(groups: PermutationGroups, source: np.ndarray, state: dict[str, Tensor], output: Tensor) -> float:
    """Relative change of the output; the state is permuted in place, so that it is held once."""
    permuted: set[int] = set()
    for key, tensor in state.items():
        if tensor.is_floating_point() and tensor.data_ptr() not in permuted:
            permuted.add(tensor.data_ptr())
            tensor.copy_(apply(groups, source, state, [key])[key])
    return difference(output, groups.output(state, dtype=output.dtype))


def _failing(groups: PermutationGroups, output: Tensor, bound: float) -> str:
    """The first level whose permutation alone changes the output, by its tensors."""
    for level in groups.structure.levels:
        source = np.arange(groups.structure.component.max() + 1)
        shuffle(level, level, np.random.default_rng(1), source)
        if not _effect(groups, source, _generic(groups.model), output) <= bound:
            channels = set(level.wires().tolist())
            names = [group.name for group in groups.groups if channels & set(group.channels.tolist())]
            return ", ".join(names)
    return "several groups together"


def _generic(model: nn.Module) -> dict[str, Tensor]:
    """Weights with noise of their own size, so that nothing is zero or equal; variances stay positive."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    room = in_one_block(model.state_dict(), torch.float64)
    for key, tensor in model.state_dict().items():
        shared = first.setdefault((tensor.data_ptr(), tensor.shape), key)
        if shared != key and tensor.numel():
            state[key] = state[shared]
            continue
        if not tensor.is_floating_point():
            state[key] = tensor
            continue
        own = tensor.detach().nan_to_num(0.0, 0.0, 0.0) if not tensor.isfinite().all() else tensor.detach()
        spread = float(own.norm()) / max(1, own.numel()) ** 0.5
        if not spread > 0:
            spread = 0.5 / max(1.0, own[0].numel() if own.dim() > 1 else 16) ** 0.5
        # In place, so that a large network is held once and not in pieces of several copies.
        # Drawn on the CPU, so that every device gets the same.
        drawn = room[key] if tensor.device.type == "cpu" else torch.empty(tensor.shape, dtype=torch.float64)
        mixed = room[key].copy_(drawn.normal_(generator=generator))
        mixed.mul_(0.3 * spread).add_(own)
        state[key] = mixed.abs_().add_(0.1 * spread) if own.dim() == 1 and bool((own >= 0).all()) else mixed
    return state


def _reasons(structure: Structure) -> Iterator[str]:
    counts: dict[str, int] = {}
    for reason, channels in structure.reasons:
        counts[reason] = counts.get(reason, 0) + channels
    for reason, channels in counts.items():
        yield f"{reason} could not be followed, {channels} channels stay in place"


def _groups(structure: Structure, placements: Iterable[Placement]) -> Iterator[Group]:
    """Groups by the place of their first tensor in the state_dict."""
    components = [(place, structure.component[place.wires.numpy()]) for place in placements]
    by_colour: dict[int, list[np.ndarray]] = {}
    for level in structure.levels:
        for colour, cell in level.cells():
            by_colour.setdefault(colour, []).append(cell)
    group_of = np.full(structure.component.max() + 1, -1)
    for index, cells in enumerate(by_colour.values()):
        group_of[np.concatenate(cells)] = index
    axes: dict[int, list[PermutedAxis]] = {}
    channels: dict[int, np.ndarray] = {}
    for place, members in components:
        order = Order.of(members, place.groups)
        for index in dict.fromkeys(group_of[members].tolist()):
            if index < 0:
                continue
            if index not in channels:
                channels[index] = _first_of_each(members[group_of[members] == index])
            positions = order.of_components(channels[index])
            assert positions is not None
            axes.setdefault(index, []).append(PermutedAxis(place.key, place.axis, positions))
    cells_of = list(by_colour.values())
    for index, members in channels.items():
        first = axes[index][0]
        start = int(first.positions.min())
        part = f" from {start}" if start else ""
        name = f"{first.key}[{first.axis}]{part}"
        yield Group(name, len(members), len(cells_of[index]), tuple(axes[index]), members)


def _first_of_each(values: np.ndarray) -> np.ndarray:
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]
