"""The content of stored files without how long something took, by which two runs of one plan differ."""

from __future__ import annotations

import json
from pathlib import Path

TIMED = ("timings.csv", "report.html", "summary.md")
TIMES = {".timings.json", *TIMED, *(f".{name}.sha256" for name in TIMED)}
"""Names of files that hold times, and digests of such."""
OF_TIMES = {"timings", "results", "report", "summary"}
"""Parts of the names of entries, and names of tables, whose digests follow from times."""


def without_times(path: Path) -> bytes:
    """The bytes of a file; of one that holds digests, its content without its own and those that follow from times."""
    content = path.read_bytes()
    if path.name == "results.json":
        return _rest(content, "tables")
    return _rest(content, "written") if path.name == ".made_by.json" else content


def _rest(content: bytes, key: str) -> bytes:
    values = json.loads(content)
    del values["seal"]
    digests = {name: digest for name, digest in values.get(key, {}).items() if OF_TIMES.isdisjoint(name.split("."))}
    return json.dumps(values | {key: digests}).encode()
