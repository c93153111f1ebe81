"""Which GPUs compute a plan: a function of the compute capability."""

from __future__ import annotations

import pytest

from transferscope.experiment.gpu_support import gpu_fault

TORCH = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize(
    ("name", "capability", "precision", "says"),
    [
        ("H200", (9, 0), "bfloat16", None),
        ("A100", (8, 0), "bfloat16", None),
        ("RTX 4090", (8, 9), "bfloat16", None),  # kernels of 8.6 run on 8.9
        ("T4", (7, 5), "float32", None),
        ("T4", (7, 5), "bfloat16", "has no bfloat16"),
        ("T4", (7, 5), "float16", None),
        ("T4", (7, 5), "auto", None),
        ("V100", (7, 0), "float32", "kernels for sm_75, sm_80"),
        ("V100", (7, 0), "bfloat16", "kernels for sm_75, sm_80"),
        ("P100", (6, 0), "float32", "kernels for"),
    ],
)
def test_kernels_and_precision(name: str, capability: tuple[int, int], precision: str, says: str | None) -> None:
    """A GPU is refused in one line where torch has no kernels for it, or it has no bfloat16 and that is asked for."""
    fault = gpu_fault(name, capability, TORCH, {precision})  # type: ignore[arg-type]
    assert (fault is None) == (says is None)
    if fault is not None and says is not None:
        assert says in fault
        assert name in fault
        assert ".".join(map(str, capability)) in fault
        assert "\n" not in fault


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_80"], (8, 6), True),  # the same major version, a later minor one
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (9, 0), True),  # translated by the driver
        (["compute_90"], (8, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_120"], (12, 0), True),
        ([], (7, 0), True),  # a torch that does not say
    ],
)
def test_what_runs_where(architectures: list[str], capability: tuple[int, int], runs: bool) -> None:
    """As NVIDIA's rules of binary compatibility and of PTX have it."""
    assert (gpu_fault("x", capability, architectures, {"float32"}) is None) == runs
