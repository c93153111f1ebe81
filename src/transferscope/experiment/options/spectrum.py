"""Options of singular values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferscope.experiment.options.common import MAX_SHOWN, Epoch, Options, Pixels


class SpectrumOptions(Options):
    """Singular values of every layer (appendix C)."""

    kinds: tuple[str, ...] = ("pt", "rit", "p")
    epochs: tuple[Literal["best", "final"] | Epoch, ...] = (0, "final")
    """Epochs whose singular values are kept. Those of 0 (untrained) and of the last one are drawn."""
    along_training: bool = True
    """True if norms, ranks and counts are tabled for every saved epoch, not only for `epochs`."""
    honour_stride: bool = True
    """False reproduces the published method, which treats a strided convolution as if its stride were 1."""
    thresholds: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=MAX_SHOWN)] = (
        0.01,
        0.03,
        0.1,
        0.3,
        1.0,
    )
    """Values below which singular values are counted."""
    padding: Literal["circular", "network"] = "circular"
    """`network` also measures the maps that networks compute, with their own padding, beside the paper's circular ones:
    `<task>.network_spectrum.table` has both, at the last epoch. Figures 31 to 33 stay circular."""
    network_tasks: tuple[str, ...] | None = None
    """Tasks measured with the network's own padding; None: all."""
    vector_layers: tuple[str, ...] = ()
    """2-d convolutions, by dotted path, whose singular vectors are drawn (the inputs that they stretch most, with the
    network's own padding) for the tasks in `network_tasks`."""
    input_size: Pixels | None = None
    """Side in pixels of the images that layers are measured at; None: what the network sees of the task's images."""
    layer_pages: tuple[str, ...] | None = None
    """Tasks that get a PDF with the spectrum of every layer; None: all. The paper has it for CheXpert and clipart."""
