"""The kind of a file by its content: what errors call a file that holds no weights."""

from __future__ import annotations

import re
import stat
import zipfile
from pathlib import Path
from typing import Literal

from transferscope.system.errors import UserError

Kind = Literal["safetensors", "archive", "pickle"]

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as of Keras: convert its weights to a state_dict of torch"),
    (b"GGUF", "a GGUF file, as of llama.cpp: give the weights it was made from"),
    (b"ggml", "a GGML file: give the weights it was made from"),
    (b"lmgg", "a GGML file: give the weights it was made from"),
    (b"\x93NUMPY", "a NumPy array (.npy): save a state_dict by torch.save"),
    (b"\x1f\x8b", "a gzip archive: unpack it and give the file inside"),
    (b"BZh", "a bzip2 archive: unpack it and give the file inside"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it and give the file inside"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it and give the file inside"),
    (b"\x04\x22\x4d\x18", "an lz4 archive: unpack it and give the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and give the file inside"),
    (b"Rar!", "a RAR archive: unpack it and give the file inside"),
    (b"\x89PNG", "a PNG image: check the path"),
    (b"\xff\xd8\xff", "a JPEG image: check the path"),
    (b"GIF8", "a GIF image: check the path"),
    (b"%PDF", "a PDF document: check the path"),
    (b"\x7fELF", "a program: check the path"),
    (b"MZ", "a Windows program: check the path"),
    (b"PAR1", "a Parquet table: check the path"),
    (b"SQLite format 3\x00", "an SQLite database: check the path"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file: save a state_dict by torch.save"),
    (b"\xff\xfe", "a text in UTF-16: give the file with the weights"),
    (b"\xfe\xff", "a text in UTF-16: give the file with the weights"),
)
_TEXTS: tuple[tuple[str, str], ...] = (
    ("version https://git-lfs", "a git-lfs pointer, not the file it points to: run git lfs pull"),
    ("<!doctype html", "an HTML page, as a failed download leaves it: download the file again"),
    ("<html", "an HTML page, as a failed download leaves it: download the file again"),
    ("<?xml", "an XML document, as a failed download leaves it: download the file again"),
    ("{", "a JSON text: give the file with the weights"),
    ("[", "a JSON text: give the file with the weights"),
)
_JOBLIB = "load it by joblib.load, and save the tensors by torch.save"
_NOT_IN_TEXT = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def kind_of(path: Path) -> Kind | None:
    """The reader that takes the file; None where its content is of no known kind, as after damage.

    Raises UserError that names the kind of a file which is something else (a web page, TorchScript, Keras, ...), which
    is missing, or empty, and of a path that leads to no file.
    """
    start, size = _start_of(path)
    if start.startswith(b"PK"):
        _check_archive(path)
        return "archive"
    if _is_safetensors(start, size):
        return "safetensors"
    described = _described(path, start)
    if described is not None:
        raise UserError(f"checkpoint {path} is {described}")
    return "pickle" if _is_pickle(start) else None


def _start_of(path: Path) -> tuple[bytes, int]:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"checkpoint {path} is a device, pipe or socket, no file: check the path")
        with path.open("rb") as file:
            start = file.read(4096)
    except FileNotFoundError as error:
        if address := re.match(r"(https?|s3|gs|hf):/", str(path)):
            raise UserError(
                f"checkpoint {path} is an address ({address[1]}): download the file and give its path"
            ) from error
        raise UserError(f"checkpoint {path} does not exist: check the path") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"checkpoint {str(path)!r} cannot be read ({reason}): check the path") from error
    if not start:
        raise UserError(f"checkpoint {path} is empty (0 bytes): copy it again")
    return start, state.st_size


def _is_safetensors(start: bytes, size: int) -> bool:
    """Eight bytes that give the length of the header, and a header that is JSON."""
    length = int.from_bytes(start[:8], "little")
    return len(start) > 8 and start[8:9] == b"{" and 2 <= length < 2**32 and size >= 8


def _is_pickle(start: bytes) -> bool:
    """A protocol of 2 to 5; protocols 0 and 1 have no mark of their own."""
    return len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5


def _described(path: Path, start: bytes) -> str | None:
    for magic, name in _STARTS:
        if start.startswith(magic):
            return name
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it and give the file inside"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model: give weights of torch"
    if _looks_like_messagepack(start):
        return "a MessagePack file, as of Flax: convert its weights to a state_dict of torch"
    if path.suffix == ".onnx" or _looks_like_onnx(start):
        return "an ONNX model: give the state_dict it was exported from"
    if path.suffix == ".pb" or path.name.endswith(".index") or ".data-" in path.name:
        return "a TensorFlow file: give weights of torch"
    if b"joblib.numpy_pickle" in start:
        return f"a joblib file: {_JOBLIB}"
    if not any(start):
        return "zeros only, as a copy that failed leaves it: copy it again"
    text = _text(start)
    if text is None and start[:1] == b"\x78" and int.from_bytes(start[:2]) % 31 == 0:  # the header of zlib
        return f"compressed by zlib, as joblib does: {_JOBLIB}"
    return text


def _looks_like_messagepack(start: bytes) -> bool:
    """A mapping whose first key is a text."""
    is_mapping = 0x80 < start[0] < 0x90 or start[0] in (0xDE, 0xDF)
    key = start[{0xDE: 3, 0xDF: 5}.get(start[0], 1) :][:1]
    return is_mapping and bool(key) and (0xA0 < key[0] < 0xC0 or key[0] == 0xD9)


def _looks_like_onnx(start: bytes) -> bool:
    """Protocol buffers of ONNX begin with the version (field 1) and the producer's name (field 2) or a later field."""
    return len(start) > 4 and start[0] == 0x08 and 0 < start[1] < 0x20 and start[2] in (0x12, 0x1A, 0x22, 0x3A)


def _text(start: bytes) -> str | None:
    try:
        text = start.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return None
        text = start[: error.start].decode("utf-8-sig")
    lowered = text.lstrip().lower()
    for beginning, name in _TEXTS:
        if lowered.startswith(beginning):
            return name
    if any(byte in _NOT_IN_TEXT for byte in start):
        return None
    shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:200]).split())[:40]
    return f"a text that begins with {shown!r}: give the file with the weights"


def _check_archive(path: Path) -> None:
    """Raise UserError unless a zip archive is one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises errors of many types for damaged archives
        raise UserError(f"checkpoint {path} is a zip archive that is cut off or damaged: copy it again") from error
    described = _archive_of(names)
    if described is not None:
        raise UserError(f"checkpoint {path} is {described}")


def _archive_of(names: list[str]) -> str | None:
    """The kind of an archive that is no file of torch.save, by the names of its members; None for one of torch.save."""
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "a TorchScript archive, which holds code: save the model's state_dict() by torch.save"
    if "data.pkl" in inner:
        return None
    if "archive_format" in inner or any(name.endswith("serialized_exported_program.json") for name in names):
        return "an archive of torch.export, which holds a program: save the model's state_dict() by torch.save"
    if "model.weights.h5" in names:
        return "a Keras archive: give weights of torch"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz): save a state_dict by torch.save"
    if any(name.endswith("AndroidManifest.xml") for name in names):
        return "an Android package: check the path"
    listed = ", ".join(repr(name[:80]) for name in names[:3]) or "nothing"
    return f"a zip archive, no file of torch.save (it holds {listed}): unpack it and give the file inside"
