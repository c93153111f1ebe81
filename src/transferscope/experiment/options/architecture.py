"""Options of networks: the architecture, and the modules that analyses take apart."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from transferscope.experiment.options.common import Options

NOT_TAKEN = {"num_classes": "the classes of the images", "seed": "the study's seed", "name": "model.name"}
"""Arguments of `build_model` that are no options of an architecture, with their sources."""


class ModelOptions(Options):
    """An architecture by name and its keyword arguments."""

    name: str = "fixup_resnet_small"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _not_what_follows(cls, options: dict[str, Any]) -> dict[str, Any]:
        for option, source in NOT_TAKEN.items():
            if option in options:
                raise ValueError(f"{option} is not taken: it follows from {source}")
        return options


class ModulesOptions(Options):
    """Modules of a network: units whose weights are compared, moved and set back together."""

    granularity: Literal["blocks", "layers"] = "blocks"
    """Stem, residual blocks and classifier (of other architectures their units), or every convolution and linear."""
    groups: dict[str, tuple[str, ...]] | None = None
    """Modules of one's own: name -> names of tensors, starts of such up to a dot, or patterns (`layer4.*.conv2.*`)."""
