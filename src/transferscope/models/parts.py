"""The forward pass of a residual network as a sequence of its modules of analysis."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from transferscope.models.fixup_resnet import FixupResNet, fixup_classifier, fixup_stem
from transferscope.models.layers import residual_blocks


class ModelPart(nn.Module):
    """A stretch of a model's forward pass that holds the model's own submodules and parameters, under their names.

    Its state_dict has exactly the keys of its module of analysis, so it can be called with other weights by
    `torch.func.functional_call(part, weights, inputs)`; weights changed in place in the model change here too.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self._forward = forward
        for name in names:
            self._graft(model, name)

    def _graft(self, model: nn.Module, name: str) -> None:
        path, _, last = name.rpartition(".")
        holder: nn.Module = self
        for inner in path.split(".") if path else []:
            if inner not in dict(holder.named_children()):
                holder.add_module(inner, nn.Module())
            holder = holder.get_submodule(inner)
        member = getattr(model.get_submodule(path), last)
        if isinstance(member, nn.Parameter):
            holder.register_parameter(last, member)
        else:
            holder.add_module(last, member)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def split_at_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The forward pass as (module of analysis, callable) in order: applied one after the other they equal `model`.

    Fixup and torchvision ResNets: `stem` (with its pooling), each residual block, `fc` (global average and classifier),
    the names of `find_modules`. Any other architecture is one element, `("all", model)`, since the order in which its
    children are called, and what is done between them, is not known.
    """
    if isinstance(model, FixupResNet):
        stem = ModelPart(model, ["conv1", "bias1", "maxpool"], fixup_stem)
        classifier = ModelPart(model, ["bias2", "fc"], fixup_classifier)
    elif _is_torchvision_resnet(model):
        stem = ModelPart(model, ["conv1", "bn1", "relu", "maxpool"], _torchvision_stem)
        classifier = ModelPart(model, ["avgpool", "fc"], _torchvision_classifier)
    else:
        return [("all", model)]
    blocks = [(name, _block_part(model, name)) for name in residual_blocks(model)]
    return [("stem", stem), *blocks, ("fc", classifier)]


def _block_part(model: nn.Module, name: str) -> ModelPart:
    return ModelPart(model, [name], lambda part, x: part.get_submodule(name)(x))


def _is_torchvision_resnet(model: nn.Module) -> bool:
    # A model of a class whose file was never imported cannot exist: no need to import torchvision here.
    resnet = sys.modules.get("torchvision.models.resnet")
    return resnet is not None and type(model) is resnet.ResNet


def _torchvision_stem(part: Any, images: Tensor) -> Tensor:
    return part.maxpool(part.relu(part.bn1(part.conv1(images))))


def _torchvision_classifier(part: Any, features: Tensor) -> Tensor:
    return part.fc(part.avgpool(features).flatten(1))
