"""Flip bits of a finished run's data: every flip is detected, and a second run leaves the files that there were.

    uv run python tests/endurance/bit_flips.py                      # on a tiny study, which is run first
    uv run python tests/endurance/bit_flips.py --project FOLDER     # on the data of a project that has run

Places are random: half of them by file, half by byte, since a few files hold most bytes. Flips are tried one by one,
each by the reader of its file, and undone; then all are made at once, the project runs again, and all files are
compared. The project is left whole, or as it is where that fails. A remembered measurement that the second run does not
ask for, as the bend of a curve whose points are remembered, too, stays damaged, and is detected when it is read.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transferscope.generated.draw import DIGESTS, check_generated
from transferscope.images.split import PackedSplit
from transferscope.models.series import INDEX, CheckpointSeries, read_index
from transferscope.system import stored
from transferscope.system.errors import UserError
from transferscope.system.stored import check
from transferscope.training.history import HISTORY, STORED_TIMINGS, TIMINGS, history_table
from without_times import without_times

DECIDES_NOTHING = {".running": "names the last process that ran here", ".gitkeep": "keeps an empty folder in git"}
MEASUREMENTS = "landscape_measurements"
TIMES = ("timings", "report.html", "summary.md", ".running", "split.json")
"""Parts of the names of files that hold times, which differ between runs; split.json a digest of those of the images."""


def files_of(data: Path) -> list[Path]:
    """All files of a data folder, in order, without the pages that `kedro site` writes for others to read."""
    every = sorted(path for path in data.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in every if path.relative_to(data).parts[0] != "site"]


def places(files: list[Path], count: int, seed: int) -> list[tuple[Path, int, int]]:
    """`count` times a file, the position of a byte in it, and a bit."""
    rng = np.random.default_rng(seed)
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    by_file, by_byte = rng.integers(len(files), size=count), rng.choice(len(files), count, p=sizes / sizes.sum())
    chosen = [files[(by_file if number % 2 else by_byte)[number]] for number in range(count)]
    return [(path, int(rng.integers(path.stat().st_size)), int(rng.integers(8))) for path in chosen]


def flip(path: Path, position: int, bit: int) -> None:
    """Flip a bit in place."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))


def reader(path: Path) -> Callable[[], object]:
    """The reader that meets the file in a run, and raises an error for a damaged one."""
    folder = path.parent
    if path.name in DECIDES_NOTHING:
        return path.read_bytes
    if root := next((above for above in path.parents if (above / DIGESTS).is_file()), None):
        return lambda: check_generated(root)
    if (folder / "split.json").is_file():
        return lambda: PackedSplit.open(folder).check()
    if (folder / INDEX).is_file():
        tables = {HISTORY: lambda: _check_history(folder), TIMINGS: lambda: _check_timings(folder)}
        tables[STORED_TIMINGS] = lambda: check(path)
        return tables.get(path.name, lambda: CheckpointSeries.open(folder).check())
    if path.suffix == ".sha256":
        return lambda: check(path.with_name(path.name.removeprefix(".").removesuffix(".sha256")))
    return lambda: check(path)


def _check_history(folder: Path) -> None:
    if (folder / HISTORY).read_text() != history_table(read_index(folder)["history"]).to_csv(index=False):
        raise UserError("it is written again from the index")


def _check_timings(folder: Path) -> None:
    import pandas as pd

    if (folder / TIMINGS).read_text() != pd.DataFrame(stored.read_json(folder / STORED_TIMINGS)["rows"]).to_csv(
        index=False
    ):
        raise UserError("it is written again from the hidden file beside it")


def is_detected(path: Path, position: int, bit: int) -> bool:
    """Flip, read as a new process would, and undo."""
    time.sleep(0.01)  # clocks of file systems tick every few milliseconds
    flip(path, position, bit)
    try:
        return _is_refused(path)
    finally:
        flip(path, position, bit)


def _is_refused(path: Path) -> bool:
    """Whether a new process would find a file damaged."""
    stored._whole.clear()
    stored._digests.clear()
    try:
        reader(path)()
    except (UserError, UnicodeDecodeError, FileNotFoundError):
        return True
    return False


def digests(data: Path) -> dict[Path, str]:
    """sha256 of every file whose content follows from the plan."""
    followed = [path for path in files_of(data) if not any(part in path.name for part in TIMES)]
    return {path.relative_to(data): hashlib.sha256(without_times(path)).hexdigest() for path in followed}


def heal(project: Path, data: Path, flips: list[tuple[Path, int, int]]) -> list[str]:
    """Make all flips at once and run the project again; the files that are then others than before."""
    before = digests(data)
    for path, position, bit in flips:
        flip(path, position, bit)
    subprocess.run([sys.executable, "-m", "kedro", "run"], cwd=project, check=True)
    after = digests(data)
    return sorted(str(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def waits_for_its_reader(path: Path) -> bool:
    """Whether a file is a remembered measurement that nothing has read since it was damaged."""
    return MEASUREMENTS in path.parts and path.is_file() and _is_refused(path)


def tiny_project(folder: Path) -> Path:
    """A finished run of the tiny study of the tests."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tiny_project import make_project

    make_project(folder)
    subprocess.run([sys.executable, "-m", "kedro", "run"], cwd=folder, check=True)
    return folder


def report(project: Path, data: Path, count: int, seed: int, *, rerun: bool) -> bool:
    """Try the flips and print what came of them; whether all went well."""
    flips = places(files_of(data), count, seed)
    outcomes: Counter[str] = Counter()
    for path, position, bit in flips:
        if is_detected(path, position, bit):
            outcomes["detected"] += 1
        elif path.name in DECIDES_NOTHING:
            outcomes[f"in {path.name}, which {DECIDES_NOTHING[path.name]}"] += 1
        else:
            outcomes["missed"] += 1
            print(f"missed: byte {position}, bit {bit} of {path}")
    print(
        f"{count} flips in {len(files_of(data)):,} files: " + ", ".join(f"{n} {what}" for what, n in outcomes.items())
    )
    if not rerun:
        return not outcomes["missed"]
    different = heal(project, data, flips)
    waiting = [name for name in different if waits_for_its_reader(data / name)]
    different = [name for name in different if name not in waiting]
    print(f"{len(waiting)} remembered measurements were not asked for, and are damaged for their next reader")
    print(f"after another run: {len(different)} files differ {different[:20]}")
    return not outcomes["missed"] and not different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="a project that has run; by default the tiny study of the tests")
    parser.add_argument("--data", type=Path, help="its data folder, if it is not `data`")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-rerun", action="store_true", help="try the flips, but do not run the project again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        project = given.project or tiny_project(Path(work))
        whole = report(project, given.data or project / "data", given.flips, given.seed, rerun=not given.no_rerun)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
