"""Read files of `torch.save` and other pickles as data.

`torch.load(weights_only=True)` runs no code either, but it refuses NumPy's arrays and paths beside the weights, hands
the file's values to constructors in C where they are allowed, allocates what a damaged file claims, and reads the
optimizer's state too. Here the pickle is decoded as data (`pickle_data`), tensors in it become references
(`pickled_tensors`), every claimed size is checked against the bytes that there are, and only the tensors that are
asked for are read.
"""

from __future__ import annotations

import io
import math
import mmap
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from transferscope.models.file_kind import Kind
from transferscope.models.pickle_data import MalformedPickle, Name, NeedsCode, decode_pickle
from transferscope.models.pickled_tensors import ArrayRef, ObjectBuilder, StorageRef, TensorRef, are_sizes, storage_ref
from transferscope.system.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_CLAIM_FACTOR, _CLAIM_BYTES = 64, 2**26


class Storage(Protocol):
    """The bytes of the tensors of a file."""

    def read(self, key: str, size: int) -> bytearray:
        """At least `size` bytes. Raises MalformedPickle if there are fewer."""
        ...


@dataclass
class TorchFile:
    """The content of a file: plain values, with `TensorRef` and `ArrayRef` where there are tensors and arrays."""

    path: Path
    content: Any
    size: int
    storage: Storage | None = None
    big_endian: bool = False
    set_aside: dict[str, None] = field(default_factory=dict)
    """Names of the classes of objects that were not read."""

    def tensors(self, refs: dict[str, TensorRef | ArrayRef], *, values: bool = True) -> dict[str, Tensor]:
        """The tensors, on the CPU; without `values` on the device `meta`, with shapes and dtypes only.

        Raises UserError where one is sparse, quantised or without values, or claims more bytes than there are.
        """
        self._check_claims(refs)
        buffers: dict[tuple[str, torch.dtype], Tensor] = {}
        return {key: self._tensor(key, ref, buffers, values) for key, ref in refs.items()}

    def _tensor(
        self, key: str, ref: TensorRef | ArrayRef, buffers: dict[tuple[str, torch.dtype], Tensor], values: bool
    ) -> Tensor:
        if isinstance(ref, ArrayRef):
            return self._from_array(key, ref, values)
        if not values:
            return torch.empty(ref.size, dtype=ref.dtype, device="meta")
        if 0 in ref.size:
            return torch.empty(ref.size, dtype=ref.dtype)
        storage = ref.storage
        assert storage is not None
        if self.storage is None:
            raise MalformedPickle(f"tensor {key!r} has no numbers")
        where = (storage.key, ref.dtype)
        if where not in buffers:
            raw = self.storage.read(storage.key, storage.num_bytes)
            if self.big_endian != (sys.byteorder == "big"):
                raw = _swapped(raw, ref.dtype)
            count = storage.num_bytes // ref.dtype.itemsize
            buffers[where] = torch.frombuffer(raw, dtype=torch.uint8, count=count * ref.dtype.itemsize).view(ref.dtype)
        return buffers[where].as_strided(ref.size, ref.stride, storage.offset + ref.offset)

    def _from_array(self, key: str, ref: ArrayRef, values: bool) -> Tensor:
        code, shape = ref.code(), ref.shape
        assert code is not None
        if not are_sizes(shape) or math.prod(shape) * int(code[2:]) != len(ref.content):
            raise self._fault(key, "is an array whose bytes do not fit its shape")
        array = np.frombuffer(ref.content, dtype=code).reshape(shape, order="F" if ref.fortran is True else "C")
        native = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        return native if values else native.to("meta")

    def _check_claims(self, refs: dict[str, TensorRef | ArrayRef]) -> None:
        claimed, stored = 0, {}
        for key, ref in refs.items():
            if isinstance(ref, ArrayRef):
                continue
            if ref.fault is not None:
                raise self._fault(key, ref.fault)
            if 0 in ref.size:
                continue
            assert ref.storage is not None
            held = ref.storage.num_bytes // ref.dtype.itemsize - ref.storage.offset
            last = ref.offset + sum((size - 1) * stride for size, stride in zip(ref.size, ref.stride, strict=True))
            if last >= held:
                raise self._fault(key, f"claims {last + 1:,} numbers, of which the file has {max(held, 0):,}")
            claimed += math.prod(ref.size) * ref.dtype.itemsize
            stored[ref.storage.key] = ref.storage.num_bytes
        if claimed > _CLAIM_FACTOR * self.size + _CLAIM_BYTES or sum(stored.values()) > self.size:
            total = max(claimed, sum(stored.values()))
            raise UserError(
                f"checkpoint {self.path} is damaged: its tensors claim {total:,} bytes of {self.size:,}; copy it again"
            )

    def _fault(self, key: str, fault: str) -> UserError:
        return UserError(f"checkpoint {self.path}: tensor {key!r} {fault}; save model.state_dict() with dense tensors")


@contextmanager
def open_torch_file(path: Path, kind: Kind | None) -> Iterator[TorchFile]:
    """Open a file of torch.save (archive or older), or another pickle, and decode its content.

    Raises UserError, naming the file, where it is cut off, damaged, or needs code that is not run.
    """
    try:
        with _zip_file(path) if kind == "archive" else _stream_file(path) as file:
            yield file
    except UserError:
        raise
    except NeedsCode as error:
        raise UserError(
            f"checkpoint {path} holds objects that need code of their own, which is not run ({first_line(error)}): "
            "save only model.state_dict()"
        ) from error
    except MemoryError as error:
        raise UserError(f"checkpoint {path} needs more memory than there is: use another machine") from error
    except Exception as error:  # zipfile, pickletools and torch raise errors of many types for damaged bytes
        raise UserError(
            f"checkpoint {path} is cut off or no file of torch.save ({first_line(error)}): copy it again"
        ) from error


@contextmanager
def _zip_file(path: Path) -> Iterator[TorchFile]:
    with zipfile.ZipFile(path) as archive:
        size = path.stat().st_size
        pickles = [name for name in archive.namelist() if name.partition("/")[2] == "data.pkl"]
        storage = _ArchiveStorage(archive, pickles[0].removesuffix("data.pkl"), size)
        order = storage.member("byteorder").strip() if storage.has("byteorder") else b"little"
        builder = ObjectBuilder()
        content = decode_pickle(io.BytesIO(storage.member("data.pkl")), builder.construct, storage_ref, builder.build)
        yield TorchFile(path, content, size, storage, order == b"big", builder.set_aside)


class _ArchiveStorage:
    """Members of a zip archive; those of torch.save are stored as they are."""

    def __init__(self, archive: zipfile.ZipFile, root: str, size: int) -> None:
        self.archive, self.root, self.size = archive, root, size

    def has(self, name: str) -> bool:
        return self.root + name in self.archive.NameToInfo

    def member(self, name: str) -> bytes:
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise MalformedPickle(f"its member {name} is compressed, which torch.save does not do")
        if info.file_size > self.size:
            raise MalformedPickle(f"its member {name} claims {info.file_size:,} bytes of {self.size:,}")
        return self.archive.read(info)

    def read(self, key: str, size: int) -> bytearray:
        content = bytearray(self.member(f"data/{key}"))
        if len(content) < size:
            raise MalformedPickle(f"its member data/{key} has {len(content):,} bytes, not {size:,}")
        return content


@contextmanager
def _stream_file(path: Path) -> Iterator[TorchFile]:
    """The format of torch before archives (several pickles, then the numbers), or one pickle."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        builder = ObjectBuilder()

        def decode() -> Any:
            return decode_pickle(stream, builder.construct, refer, builder.build)

        elements: dict[str, int] = {}

        def refer(identifier: Any) -> StorageRef | Name:
            ref = storage_ref(identifier)
            if isinstance(ref, StorageRef):
                elements[ref.key] = 1 if ref.dtype is None else ref.dtype.itemsize
            return ref

        content = decode()
        if content != _MAGIC:
            yield TorchFile(path, content, len(stream), None, False, builder.set_aside)
            return
        decode()
        system = decode()
        content = decode()
        places = _places(stream, decode(), elements)
        big_endian = isinstance(system, dict) and system.get("little_endian") is False
        yield TorchFile(path, content, len(stream), _StreamStorage(stream, places), big_endian, builder.set_aside)


def _places(stream: mmap.mmap, keys: Any, elements: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Key of a storage -> where its bytes begin, and how many they are."""
    places: dict[str, tuple[int, int]] = {}
    if not isinstance(keys, list):
        raise MalformedPickle("no list of storages")
    for key in keys:
        size = int.from_bytes(stream.read(8), "little", signed=True)
        begin, length = stream.tell(), size * elements.get(str(key), 1)
        if size < 0 or begin + length > len(stream):
            raise MalformedPickle(f"it claims {begin + length:,} bytes and has {len(stream):,}")
        places[str(key)] = (begin, length)
        stream.seek(begin + length)
    return places


class _StreamStorage:
    def __init__(self, stream: mmap.mmap, places: dict[str, tuple[int, int]]) -> None:
        self.stream, self.places = stream, places

    def read(self, key: str, size: int) -> bytearray:
        begin, length = self.places.get(key, (0, 0))
        if length < size:
            raise MalformedPickle(f"storage {key} has {length:,} bytes, not {size:,}")
        return bytearray(self.stream[begin : begin + length])


def _swapped(raw: bytearray, dtype: torch.dtype) -> bytearray:
    """The bytes in the other order; the two halves of a complex number are swapped each."""
    width = dtype.itemsize // (2 if dtype.is_complex else 1)
    whole = len(raw) // width * width
    return bytearray(np.frombuffer(raw[:whole], dtype=f"V{width}").view("u1").reshape(-1, width)[:, ::-1].tobytes())


def first_line(error: Exception) -> str:
    """The first line of an error's text, without escape codes, or the name of its class."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]
