"""The script that measures a GPU, in its small version on the CPU."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from transferscope.benchmarks import gpu, networks
from transferscope.benchmarks.cases import Case, Row, Setting, rows_of

SMALL = Setting(torch.device("cpu"), small=True, seconds=0.001)


@pytest.mark.parametrize("name", gpu.LIMITS)
def test_every_measurement_gives_figures(name: str) -> None:
    """Each case of each measurement ends with a positive rate, and is compared with cases that were measured before."""
    rows = list(gpu.measured(name, SMALL))
    assert [row.error for row in rows] == [""] * len(rows)
    assert len(rows) >= 2
    for number, row in enumerate(rows):
        assert row.value is not None
        assert row.value > 0
        assert row.unit
        known = {other.variant: other.value for other in rows[:number]}
        assert row.ratios == pytest.approx({other: row.value / known[other] for other in row.ratios})  # type: ignore[operator]


def test_the_limits_add_up_to_eight_minutes() -> None:
    """Measurements that all run into their limits still end in time."""
    assert sum(gpu.LIMITS.values()) <= 8 * 60


def test_a_case_that_fails_harms_no_other() -> None:
    """Its row names the error; the cases after it are measured; so it is with an error between two cases."""

    def broken() -> float:
        raise RuntimeError("out of\nmemory")

    def cases(setting: Setting) -> Iterator[Case]:
        yield Case("first", broken)
        yield Case("second", lambda: 2.0, flops=0.0, against=("first",))
        raise ImportError("no scipy")

    rows = list(rows_of("trial", cases, SMALL))
    assert [(row.variant, row.value, row.error) for row in rows] == [
        ("first", None, "RuntimeError: out of memory"),
        ("second", 2.0, ""),
        ("preparation", None, "ImportError: no scipy"),
    ]
    assert rows[1].ratios == {}


def test_a_missing_library_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement whose module cannot be imported names what is missing."""
    monkeypatch.setitem(sys.modules, "transferscope.benchmarks.analyses", None)
    (row,) = gpu.measured("cka", SMALL)
    assert "transferscope.benchmarks.analyses" in row.error


ROW = json.dumps({"measurement": "trial", "variant": "first", "value": 1.0, "unit": "images/s"})


@pytest.mark.parametrize(
    ("then", "error"),
    [
        ("", None),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
        ("raise SystemExit('no kernel image')", "ended with 1: no kernel image"),
        ("import time; time.sleep(60)", "stopped after 1 s"),
    ],
)
def test_the_rows_before_an_end_are_kept(tmp_path: Path, then: str, error: str | None) -> None:
    """A process that is killed, fails or takes too long leaves the rows it had, and one that says how it ended."""
    rows = tmp_path / "rows"
    code = f"import sys; file = open(sys.argv[1], 'a'); file.write({ROW!r} + chr(10)); file.close(); {then}"
    begin = time.monotonic()
    first, *rest = gpu.isolated("trial", [sys.executable, "-c", code, str(rows)], rows, 1.0)
    assert time.monotonic() - begin < 30
    assert first == Row("trial", "first", 1.0, "images/s")
    assert [row.error for row in rest] == ([] if error is None else [error])


def test_a_measurement_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    """What the process has started ends with it, such as workers of a compiler."""
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time; "
        "made = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(child)!r}, 'w').write(str(made.pid)); time.sleep(60)"
    )
    list(gpu.isolated("trial", [sys.executable, "-c", code], tmp_path / "rows", 1.0))
    number = int(child.read_text())
    end = time.monotonic() + 30
    while psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA RTX A4000", 5.0),
        ("NVIDIA RTX A1000 Laptop GPU", 5.0),
        ("NVIDIA A10G", 5.0),
    ],
)
def test_a_peak_is_that_of_the_chip_of_this_name(monkeypatch: pytest.MonkeyPatch, name: str, peak: float) -> None:
    """A chip whose name only begins like one that is known is measured."""
    setting = Setting(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(Setting, "product_rate", lambda self: 5.0)
    assert setting.peak()[0] == pytest.approx(peak)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "nowhere/speeds.json"], "--json nowhere/speeds.json: give a file in a folder that exists"),
        (["--json", "."], "--json .: give a file"),
        (["--device", "gpu"], "--device gpu: write cpu, cuda"),
        (["--device", "cuda:99"], "--device cuda:99: there are"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not after eight minutes, with the figures lost."""
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert message in capsys.readouterr().err


def test_the_whole_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a line per row and writes the same as JSON, with the machine."""
    path = tmp_path / "speeds.json"
    arguments = ["--small", "--device", "cpu", "--only", "chip", "--json", str(path)]
    assert gpu.main(arguments) == 0
    written = json.loads(path.read_text())
    assert written["machine"]["torch"] == torch.__version__
    assert [row["variant"] for row in written["rows"]] == ["product of matrices, bfloat16", "copy within memory"]
    shown = capsys.readouterr().out
    assert all(row["variant"] in shown for row in written["rows"])


def test_time_that_is_over_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measurements for which no time is left are named, and a table without figures is no success."""
    assert gpu.main(["--small", "--device", "cpu", "--minutes", "0", "--only", "chip", "cka"]) == 1
    assert capsys.readouterr().out.count("left out: the time is over") == 2


def test_it_needs_no_kedro(tmp_path: Path) -> None:
    """The modules of the measurements load without Kedro, so that the script runs where it is not installed."""
    code = (
        "import sys; sys.modules['kedro'] = None; "
        "import transferscope.benchmarks.gpu, transferscope.benchmarks.networks, transferscope.benchmarks.feeding, "
        "transferscope.benchmarks.analyses, transferscope.training.step"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def test_trainings_as_one_are_those_trainings() -> None:
    """Two vmapped steps leave in each network's weights what two steps of its own do, up to rounding."""
    weights, together = networks.step_together(SMALL, 2, "float32")
    alone = [networks.small_step(SMALL, seed) for seed in range(2)]
    for _ in range(2):
        together()
        for _, step in alone:
            step()
    for index, (network, _) in enumerate(alone):
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(weights[name][index], parameter, rtol=1e-4, atol=1e-6)
