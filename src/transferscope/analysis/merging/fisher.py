"""Fisher-weighted averages (Matena & Raffel 2022, arXiv 2111.09832)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.analysis.evaluator import Batches, iterate
from transferscope.analysis.merging.candidates import check_candidates, in_parts, mean_tensor
from transferscope.analysis.states import State
from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError


def diagonal_fisher(
    model: nn.Module, batches: Batches, *, multi_label: bool = False, seed: int = 0
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of every parameter: E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2.

    One y is drawn from the model's own prediction for each image, which is unbiased and needs no labels; with several
    labels an image each is drawn on its own. The network computes in evaluation mode and is left as it was.

    Args:
        batches: Network inputs and labels; labels are not used. Every image takes a backward pass of its own.

    Returns:
        By name as in the state_dict, float32, in the shapes of the parameters; a parameter that several layers share
        has the same numbers under each of its names.

    Raises UserError where there are no images. Memory: the network, its Fisher information and one gradient.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    sums = {id(parameter): torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters}
    wanted = [parameter.requires_grad for parameter in parameters]
    handles = []
    for parameter in parameters:
        parameter.requires_grad_(True)
        handles.append(parameter.register_post_accumulate_grad_hook(_adds_square(sums[id(parameter)])))
    generator = torch.Generator().manual_seed(seed)
    count = 0
    try:
        with evaluation_mode(model), torch.enable_grad():
            for inputs, _ in iterate(batches):
                for image in inputs:
                    _log_probability(model(image[None]), multi_label, generator).backward()
                    count += 1
    finally:
        for handle in handles:
            handle.remove()
        for parameter, needed in zip(parameters, wanted, strict=True):
            parameter.requires_grad_(needed)
    if count == 0:
        raise UserError("Fisher information needs images: the batches are empty")
    return {name: total.div(count) if len(names[key]) > 1 else total.div_(count)
            for key, total in sums.items() for name in names[key]}  # fmt: skip


def _adds_square(total: Tensor) -> Callable[[Tensor], None]:
    """Add a gradient's square to `total` as soon as it is complete, and free it."""

    def add(parameter: Tensor) -> None:
        if parameter.grad is not None:
            total.addcmul_(parameter.grad, parameter.grad)
            parameter.grad = None

    return add


def _log_probability(logits: Tensor, multi_label: bool, generator: torch.Generator) -> Tensor:
    """Of a label, or of labels, drawn from the prediction itself."""
    known = logits.detach().float().cpu()
    if multi_label:
        drawn = torch.bernoulli(known.sigmoid(), generator=generator).to(logits)
        return -F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
    label = torch.multinomial(known.softmax(dim=1), 1, generator=generator)[:, 0].to(logits.device)
    return -F.cross_entropy(logits, label, reduction="sum")


def fisher_merge(states: Sequence[State], information: Sequence[State]) -> dict[str, Tensor]:
    """sum_i F_i theta_i / sum_i F_i, weight by weight (Eq. 5 with all lambda_i equal).

    Where all F_i are 0 (a weight that decides nothing), and for tensors without Fisher information (statistics), it is
    the mean. Equal F_i give the mean as well. Symmetric in the candidates.

    Args:
        information: The diagonal of each candidate's Fisher information, as `diagonal_fisher` gives it. It is read a
            tensor at a time, so it may lie in a file.

    Raises UserError as `check_candidates` does, where there is not one for each candidate, and for negative or
    non-finite numbers in it. Memory: the result and a few tensors.
    """
    check_candidates(states)
    if len(information) != len(states):
        raise UserError(
            f"Fisher information of {len(information)} networks for {len(states)} candidates: give one each"
        )
    return {key: _weighted(states, information, key) for key in states[0]}


def _weighted(states: Sequence[State], information: Sequence[State], key: str) -> Tensor:
    mean = mean_tensor(states, key)
    if not mean.is_floating_point() or any(key not in one for one in information):
        return mean
    # Around the mean, so that equal candidates stay what they are.
    moved, total = (torch.zeros(mean.shape, dtype=torch.float64, device=mean.device) for _ in range(2))
    for state, weights in zip(states, information, strict=True):
        for own, centre, one, shift, sum_ in in_parts(state[key], mean, weights[key].to(mean.device), moved, total):
            if not bool((one >= 0).all()) or not bool(one.isfinite().all()):
                raise UserError(f"Fisher information of {key} is negative or not finite: it is a mean of squares")
            shift.addcmul_(one.double(), own.double() - centre.double())
            sum_ += one
    for centre, shift, sum_ in in_parts(mean, moved, total):
        shift.copy_(centre.double() + torch.where(sum_ > 0, shift / sum_.where(sum_ > 0, 1), 0))
    return moved.to(mean.dtype)
