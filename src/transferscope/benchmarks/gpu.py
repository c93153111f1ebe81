"""Measure this package on one GPU in at most eight minutes; on the CPU a small version of the same.

    python -m transferscope.benchmarks.gpu [--minutes 8] [--only training cka] [--json speeds.json] [--small]

Needs torch and the libraries that each measurement itself takes; no data set and no network connection. Every
measurement runs in a process of its own with a limit of its own, so that an error of CUDA, a missing library or a slow
compiler costs that measurement and no other. Rows are printed when they are there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transferscope.benchmarks.cases import Measurement, Row, Setting, rows_of

MODULES = {
    "networks": {"chip": 20, "training": 55, "compiled_training": 140, "forward": 60, "small_trainings": 35},
    "analyses": {"interpolation": 35, "criticality": 30, "cka": 30, "spectrum": 20, "matching": 20},
    "feeding": {"feeding": 35},
}
"""Module -> its measurements, in the order in which they are made, each with its seconds at most: eight minutes."""
LIMITS = {name: limit for measurements in MODULES.values() for name, limit in measurements.items()}
LONGEST_NAME = 46
POLL_SECONDS = 0.2


def measurement_of(name: str) -> Measurement:
    """The measurement, whose module is imported only now: one that lacks a library harms no other."""
    from importlib import import_module

    module = next(module for module, names in MODULES.items() if name in names)
    measurement: Measurement = getattr(import_module(f"transferscope.benchmarks.{module}"), name)
    return measurement


def measured(name: str, setting: Setting) -> Iterator[Row]:
    """The rows of a measurement, made in this process."""
    try:
        measurement = measurement_of(name)
    except Exception as error:
        yield Row(name, "preparation", error=f"{type(error).__name__}: {error}")
        return
    yield from rows_of(name, measurement, setting)


def isolated(name: str, command: Sequence[str], rows: Path, limit: float) -> Iterator[Row]:
    """The rows that a process writes into the file `rows`, each when it is there.

    The process is ended, with all that it has started, after `limit` seconds; that, or another end than a good one, is
    a last row with the error.
    """
    rows.touch()
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            with rows.open() as file:
                ended = False
                while not ended:
                    ended = process.poll() is not None
                    for line in file:
                        yield Row(**json.loads(line))
                    if not ended and time.monotonic() - begin > limit:
                        yield Row(name, "the rest", error=f"stopped after {limit:.0f} s", seconds=limit)
                        return
                    if not ended:
                        time.sleep(POLL_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            yield Row(name, "the rest", error=f"ended with {process.returncode}: {last[:200]}".rstrip(": "))


def machine(setting: Setting) -> dict[str, Any]:
    """The device and the software, as the JSON file holds them."""
    import platform

    import torch

    facts: dict[str, Any] = {
        "device": "CPU",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "small": setting.small,
        "precision": setting.precision,
    }
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        facts |= {
            "device": properties.name,
            "gigabytes": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts | {"peak": setting.peak()[1]}


def line_of(row: Row) -> str:
    """A row as a line of the table."""
    name = f"{row.variant:{LONGEST_NAME}s}"
    if row.error:
        return f"  {name} {row.error}"
    share = f"{row.share_of_peak:6.1%} of the peak" if row.share_of_peak is not None else ""
    ratios = ", ".join(f"{ratio:.3g} x {other}" for other, ratio in row.ratios.items())
    return f"  {name} {_number(row.value):>10s} {row.unit:10s} {row.seconds:5.0f} s  {share}{ratios}".rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON file; 1 where no row has a figure."""
    options = _options(arguments)
    setting = _setting(options)
    if options.rows is not None:  # this is the process of one measurement
        with options.rows.open("a") as file:
            for row in measured(options.only[0], setting):
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
        return 0
    facts = machine(setting)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    rows: list[Row] = []
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            print(f"\n{name}", flush=True)
            for row in _measurement(name, setting, Path(folder) / name, end, options):
                rows.append(row)
                print(line_of(row), flush=True)
    if options.json is not None:
        text = json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=1)
        options.json.write_text(text + "\n")
    return 0 if any(row.value is not None for row in rows) else 1


def _measurement(name: str, setting: Setting, rows: Path, end: float, options: argparse.Namespace) -> Iterator[Row]:
    """In a process of its own, unless all shall run here, within its limit and what is left of the whole time."""
    if options.here:
        yield from measured(name, setting)
        return
    left = end - time.monotonic()
    if left < 1:
        yield Row(name, "all", error="left out: the time is over")
        return
    command = [sys.executable, "-m", "transferscope.benchmarks.gpu", "--only", name, "--rows", str(rows)]
    command += ["--device", str(setting.device), *(["--small"] if setting.small else [])]
    yield from isolated(name, command, rows, min(left, LIMITS[name]))


def _setting(options: argparse.Namespace) -> Setting:
    import torch

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    small = options.small or device.type == "cpu"
    return Setting(device, small, seconds=0.02 if small else 1.5)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole, at most")
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), default=list(LIMITS), metavar="MEASUREMENT")
    parser.add_argument("--json", type=Path, help="file for the same as JSON")
    parser.add_argument("--small", action="store_true", help="small networks; always so on the CPU")
    parser.add_argument("--device", help="default: the GPU if there is one")
    parser.add_argument("--here", action="store_true", help="all in this process, without limits")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.json is not None and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        parser.error(f"--json {options.json}: give a file in a folder that exists")
    if options.device is not None and (fault := _device_fault(options.device)):
        parser.error(f"--device {options.device}: {fault}")
    return options


def _device_fault(name: str) -> str | None:
    """The reason why a device cannot be measured."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        return "write cpu, cuda, or cuda:1 for the second GPU"
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} GPUs here"
    return None if device.type in ("cpu", "cuda") else "write cpu or cuda"


if __name__ == "__main__":
    sys.exit(main())
