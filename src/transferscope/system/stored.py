"""Files of results that prove their content: written with a digest, verified when they are read.

JSON and safetensors have room for it: their first bytes hold `sha256:` and the digest of all bytes of the file, taken
with zeros in its own place. Beside every other file lies a hidden one, `.table.csv.sha256`, that `sha256sum -c` reads.
It holds the place of the file in the data folder too, so that the table of another task, pair or merge is noticed.
It is written after the file, so a kill between the two leaves a file that counts as damaged and is made again, never a
damaged one that counts as whole. A file is read for its digest once per process and change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from transferscope.system.atomic import atomic_file
from transferscope.system.errors import UserError

Stamp = tuple[int, ...]

UNSEALED = "sha256:" + "0" * 64
"""Stands near the start of what is to be sealed."""

INSIDE = (".json", ".safetensors")
LARGE = 1 << 26
"""Bytes from which the digest of a user's file is remembered across commands."""
_HEAD = 256
_PIECE = 1 << 20
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")
_LAYER = re.compile("0[1-8]_(?:raw|intermediate|primary|feature|model_input|models|model_output|reporting)")
"""A folder of Kedro's layers, such as `07_model_output`."""

_whole: dict[Path, Stamp] = {}
"""Files that this process has found whole, as they were then."""


class DamagedError(UserError):
    """A stored file whose content is not what was written; one line that names it."""

    def __init__(self, path: Path, reason: str, fix: str = "`kedro run` makes it anew") -> None:
        super().__init__(f"{path} is damaged ({reason}): {fix}")
        self.path = path
        self.reason = reason


def stamp(path: Path) -> Stamp:
    """Device, inode, size and times of a file, which change when its content does; OSError where there is none."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def path_in_data(path: Path) -> str:
    """The path from the last layer of Kedro on, such as `07_model_output/clipart/barriers.csv`; else the name alone.

    The data folder is no part of it, so that it can be moved.
    """
    parts = Path(os.path.normpath(path)).parts
    layers = [position for position, part in enumerate(parts[:-1]) if _LAYER.fullmatch(part)]
    return "/".join(parts[layers[-1] :]) if layers else path.name


def _fault_of_place(path: Path, written: str) -> str | None:
    """The fault of a file that was written as `written`; None in its place, or outside of a data folder.

    A name alone is that of a file which was written before places were noted, or outside of a data folder.
    """
    place = path_in_data(path)
    fits = written in (place, path.name) or (place == path.name and written.endswith(f"/{place}"))
    return None if fits else f"it was written as {written}"


@contextmanager
def stored_file(path: str | Path, place: str | None = None) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes `path` in one step, and its digest is written beside it.

    place: `path_in_data` where the file will lie, for one that is moved there with its folder.
    """
    path = Path(path)
    place = path_in_data(path) if place is None else place
    with atomic_file(path) as temporary:
        yield temporary
        digest = file_digest(temporary)
    with atomic_file(_beside(path), flush=False) as beside:
        beside.write_text(_text_beside(path.name, digest, place), encoding="utf-8")
    _whole[path.absolute()] = stamp(path)


def write_sealed(path: str | Path, content: bytes, *, flush: bool = True) -> None:
    """Write bytes that hold `UNSEALED` near their start, with their digest in its place.

    Without `flush` a power cut may take the file, which then counts as damaged.
    """
    path = Path(path)
    start = content.index(UNSEALED.encode(), 0, _HEAD) + len("sha256:")
    digest = hashlib.sha256(content).hexdigest()
    view = memoryview(content)
    with atomic_file(path, flush=flush) as temporary, temporary.open("wb") as file:
        for piece in (view[:start], digest.encode(), view[start + 64 :]):
            file.write(piece)
    _whole[path.absolute()] = stamp(path)


def write_json(path: str | Path, content: dict[str, Any], place: str | None = None) -> None:
    """Write a JSON file that begins with its digest and its name, or with `path_in_data` where it will lie."""
    text = json.dumps({"seal": UNSEALED, "file": place or Path(path).name} | content, indent=1)
    write_sealed(path, (text + "\n").encode())


def read_json(path: str | Path) -> dict[str, Any]:
    """The content that `write_json` wrote. DamagedError where it is another, FileNotFoundError where there is none."""
    path = Path(path)
    check(path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = {}
    written = content.get("file") if isinstance(content, dict) else None
    if not isinstance(written, str) or written.rpartition("/")[2] != path.name:
        raise DamagedError(path, "another file is in its place")
    if (fault := _fault_of_place(path, written)) is not None:
        raise DamagedError(path, fault)
    return {key: value for key, value in content.items() if key not in ("seal", "file")}


def check(path: str | Path, *, is_sealed: bool | None = None) -> None:
    """Raise DamagedError for a file without its digest or of other content, FileNotFoundError where there is none.

    is_sealed: whether its first bytes hold the digest; None: as its suffix says.
    """
    path = Path(path)
    now = stamp(path)
    if _whole.get(path.absolute()) == now:
        return
    if not path.is_file():
        raise DamagedError(path, "it is no file")
    inside = path.suffix in INSIDE if is_sealed is None else is_sealed
    reason = _sealed_damage(path) if inside else _damage_beside(path)
    if reason is not None:
        raise DamagedError(path, reason)
    _whole[path.absolute()] = now


def is_whole(path: str | Path) -> bool:
    """True if a file is there with the content that was written."""
    try:
        check(path)
    except (OSError, DamagedError):
        return False
    return True


def discard(path: Path) -> None:
    """Remove a file and the digest beside it, if they are there."""
    path.unlink(missing_ok=True)
    _beside(path).unlink(missing_ok=True)


def seal_of(path: str | Path) -> str:
    """The digest that a sealed file bears, not compared with its content; "" where it bears none."""
    with Path(path).open("rb") as file:
        match = _SEAL.search(file.read(_HEAD))
    return "" if match is None else match.group()[len("sha256:") :].decode()


def noted_digest(*paths: str | Path) -> str:
    """The digests that files of results bear, in them or beside them, not compared with their content.

    "" for no file, and where one of them bears none or is not there.
    """
    try:
        digests = [seal_of(path) if Path(path).suffix in INSIDE else _digest_beside(Path(path)) for path in paths]
    except OSError:
        return ""
    return "-".join(digests) if all(digests) else ""


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_digest(path: str | Path) -> str:
    """sha256 of a file's bytes, read once per process and change."""
    path = Path(path).absolute()
    now = stamp(path)
    known = _digests.get(path)
    if known is None or known[0] != now:
        known = _digests[path] = (now, file_digest(path))
    return known[1]


_digests: dict[Path, tuple[Stamp, str]] = {}


def remembered_digests(memory: Path) -> Callable[[str], str | None]:
    """`stored_digest` for files of the user; those of large ones are remembered in `memory` across commands.

    The function gives None for a file that cannot be read, which is reported where the file is used. A file counts as
    unchanged while its stamp is the same.
    """

    def digest(path: str) -> str | None:
        try:
            if not Path(path).is_file():  # a pipe or a device may have no end
                return None
            place, now = str(Path(path).resolve()), list(stamp(Path(path)))
            if now[2] < LARGE:
                return stored_digest(path)
            known = _read_memory(memory)
            if known.get(place, [None])[0] == now:
                return str(known[place][1])
            content_digest = stored_digest(path)
        except (OSError, ValueError):
            return None
        # On storage that takes nothing, or is full, the file is read again by the next command.
        with suppress(OSError, UserError):
            write_json(memory, {"files": known | {place: [now, content_digest]}})
        return content_digest

    return digest


def _read_memory(memory: Path) -> dict[str, Any]:
    try:
        files = read_json(memory)["files"]
    except (OSError, DamagedError):
        return {}
    assert isinstance(files, dict)
    return files


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _digest_beside(path: Path) -> str:
    """The digest in the file beside another one; "" in one that a power cut has left empty."""
    lines = _beside(path).read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].partition(" ")[0] if lines else ""


def _text_beside(name: str, digest: str, place: str) -> str:
    """The line of `sha256sum`, below a comment with the place where it is more than the name."""
    return ("" if place == name else f"# {place}\n") + f"{digest}  {name}\n"


def _damage_beside(path: Path) -> str | None:
    """The difference between the file and the digest beside it; None if there is none."""
    try:
        noted = _beside(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return f"its digest {_beside(path).name} is missing, as in version 0.1"
    written = noted.partition("\n")[0].removeprefix("# ") if noted.startswith("# ") else path.name
    if noted != _text_beside(path.name, file_digest(path), written) or written.rpartition("/")[2] != path.name:
        return "its content is not what was written"
    return _fault_of_place(path, written)


def _sealed_damage(path: Path) -> str | None:
    """The difference between the file and the digest in it; None if there is none."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        seal = _SEAL.search(head)
        if seal is None:
            return "it bears no digest, as files of version 0.1"
        digest = hashlib.sha256(head.replace(seal.group(), UNSEALED.encode(), 1))
        while piece := file.read(_PIECE):
            digest.update(piece)
    return None if seal.group().decode() == f"sha256:{digest.hexdigest()}" else "its content is not what was written"
