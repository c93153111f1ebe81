"""Cases that are timed one after the other, the rows that they give, and the device that they run on."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

NOMINAL_PEAKS = (
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("H20", 148.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("A40", 149.7),
    ("A10", 125.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
)
"""Words of a GPU's name -> TFLOP/s of dense bfloat16 products summed in float32, by its maker; the first counts."""


@dataclass(frozen=True)
class Row:
    """One figure: of a measurement's variant, in a unit, with what it is compared to; or the error in its place."""

    measurement: str
    variant: str
    value: float | None = None
    unit: str = ""
    share_of_peak: float | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    """Another variant of the same measurement -> this value divided by that one's."""
    seconds: float = 0.0
    """Spent on it, with preparation, compilation and warm-up."""
    error: str = ""


@dataclass(frozen=True)
class Case:
    """One variant of a measurement."""

    variant: str
    rate: Callable[[], float]
    """Prepares, warms up, measures; units a second."""
    unit: str = "images/s"
    flops: float | None = None
    """Floating-point operations of one unit, where a share of the chip's peak says something."""
    against: tuple[str, ...] = ()
    """Earlier variants that it is compared to."""


@dataclass
class Setting:
    """The device, how large the networks are, and how long each rate is measured."""

    device: torch.device
    small: bool = False
    """Small networks and few images, for the CPU and for tests."""
    seconds: float = 2.0
    """Of each rate, after its warm-up."""

    @property
    def model(self) -> tuple[str, dict[str, Any]]:
        """Name and options of the network of the study, or of a small one with the same kind of blocks."""
        options = {"blocks": (1, 1), "widths": (4, 8), "stem_kernel": 3} if self.small else {}
        return "fixup_resnet50", options

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return 32 if self.small else 224

    @property
    def classes(self) -> int:
        """Classes of the study's largest data sets."""
        return 10 if self.small else 345

    @property
    def precision(self) -> str:
        """bfloat16 where the device has it, else float32; of the CPU bfloat16, which it emulates where it lacks it."""
        if self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) < (8, 0):
            return "float32"
        return "bfloat16"

    def network(self, seed: int = 0) -> nn.Module:
        """The network with random weights, channels_last, on the device.

        The last convolutions of its branches, which Fixup sets to zero, are drawn too, so that all of it computes.
        """
        from transferscope.models.zoo import build_model

        name, options = self.model
        network = build_model(name, self.classes, seed=seed, **options)
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            if parameter.ndim == 4 and not parameter.any():
                parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def flops(self) -> float:
        """Floating-point operations of one forward pass of one image, counted by torch."""
        from torch.utils.flop_counter import FlopCounterMode

        network = self.network().eval()
        image = torch.zeros(1, 3, self.side, self.side, device=self.device)
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(image)
        return float(counter.get_total_flops())

    def wait(self) -> None:
        """Return when the device has done all that it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, work: Callable[[], int], *, warm_up: int = 2) -> float:
        """Units a second of `work`, which returns how many a call does; at least one call is timed.

        Calls follow each other without waiting for the device, as in a loop; calls are counted so that the device is
        waited for about ten times in all.
        """
        for _ in range(warm_up):
            work()
        self.wait()
        begin = time.perf_counter()
        done, calls = 0, 1
        while True:
            before = time.perf_counter()
            for _ in range(calls):
                done += work()
            self.wait()
            now = time.perf_counter()
            if now - begin >= self.seconds:
                return done / (now - begin)
            each = (now - before) / calls
            calls = max(1, int(self.seconds / 10 / max(each, 1e-6)))

    def peak(self) -> tuple[float, str]:
        """FLOP/s of products in `precision`, and its source: the maker, or a large product measured here."""
        if self.device.type == "cuda" and self.precision == "bfloat16":
            name = torch.cuda.get_device_name(self.device)
            for part, tera in NOMINAL_PEAKS:
                if re.search(rf"\b{part}\b", name):  # an RTX A4000 is no A40
                    return tera * 1e12, f"{tera:g} TFLOP/s, the maker's"
        measured = self.product_rate()
        return measured, f"{measured / 1e12:.3g} TFLOP/s, a product measured here"

    def product_rate(self) -> float:
        """FLOP/s of one large product of matrices in `precision`."""
        size = 256 if self.small else 8192
        dtype = getattr(torch, self.precision)
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        out: Tensor = a @ b

        def product() -> int:
            torch.mm(a, b, out=out)
            return 1

        return self.rate(product) * 2 * size**3


Measurement = Callable[[Setting], Iterable[Case]]


def rows_of(name: str, measurement: Measurement, setting: Setting) -> Iterator[Row]:
    """A row per case, each when it is measured; a case that fails gives a row with the error and harms no other."""
    values: dict[str, float] = {}
    peak: float | None = None
    try:
        for case in measurement(setting):
            begin = time.perf_counter()
            try:
                value = case.rate()
                if case.flops is not None and peak is None:
                    peak = setting.peak()[0]
                share = None if case.flops is None or peak is None else value * case.flops / peak
            except Exception as error:  # whatever it is, the others are measured
                yield Row(name, case.variant, seconds=time.perf_counter() - begin, error=_line(error))
            else:
                values[case.variant] = value
                ratios = {other: value / values[other] for other in case.against if values.get(other)}
                yield Row(name, case.variant, value, case.unit, share, ratios, time.perf_counter() - begin)
            gc.collect()
            if setting.device.type == "cuda":
                torch.cuda.empty_cache()
    except Exception as error:  # in preparing the cases
        yield Row(name, "preparation", error=_line(error))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
