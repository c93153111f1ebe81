"""Files of `torch.save` and other pickles, read as data.

`torch.load(weights_only=True)` runs no code either, but it refuses NumPy's arrays and paths beside the weights, hands
the file's values to constructors in C where they are allowed, allocates what a damaged file claims, and reads the
optimizer's state too. Here the pickle is decoded as data (`pickle_data`), every claimed size is checked against the
bytes that there are, and only the tensors that are asked for are read.
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
from transferscope.models.pickle_data import MalformedPickle, Name, NeedsCode, Opaque, decode_pickle
from transferscope.system.errors import UserError

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_ARRAY_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"])
_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")
# Modules whose objects are data: kept as what they are called, with nothing made of them.
_DATA_MODULES = [
    "argparse",
    "array",
    "collections",
    "copyreg",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "ipaddress",
    "numpy",
    "omegaconf",
    "pandas",
    "pathlib",
    "types",
    "uuid",
    "zoneinfo",
]
_DATA = frozenset(
    [
        "builtins.set",
        "builtins.frozenset",
        "builtins.slice",
        "builtins.range",
        "builtins.complex",
        "builtins.bytearray",
        "builtins.list",
        "builtins.tuple",
        "builtins.str",
        "builtins.int",
        "builtins.float",
        "builtins.bool",
        "builtins.bytes",
        "builtins.dict",
        "functools.partial",
        "random.Random",
        "re._compile",
        "time.struct_time",
        "torch.Size",
        "torch.device",
        "torch.Generator",
        "torch.serialization._get_layout",
        "torch.storage._load_from_bytes",
        "_codecs.encode",
    ]
)
_CLAIM_FACTOR, _CLAIM_BYTES = 64, 2**26


class Storage(Protocol):
    """The bytes of the tensors of a file."""

    def read(self, key: str, size: int) -> bytearray:
        """At least `size` bytes. Raises MalformedPickle if there are fewer."""
        ...


@dataclass(frozen=True)
class StorageRef:
    """A run of `size` elements in a file; without a dtype, of bytes."""

    key: str
    dtype: torch.dtype | None
    size: int
    offset: int = 0

    @property
    def num_bytes(self) -> int:
        return self.size * (1 if self.dtype is None else self.dtype.itemsize)


@dataclass(eq=False)
class TensorRef:
    """A tensor that is not read yet; `fault` says why it cannot be (sparse, quantised, ...)."""

    storage: StorageRef | None = None
    dtype: torch.dtype = torch.float32
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    fault: str | None = None


@dataclass(eq=False)
class ArrayRef:
    """A NumPy array: its bytes and how they are laid out, not checked yet."""

    dtype: Any = None
    shape: Any = ()
    fortran: Any = False
    content: Any = None

    def code(self) -> str | None:
        """The dtype as NumPy spells it (`<f4`), if it is one of numbers."""
        dtype = self.dtype
        if not (isinstance(dtype, Opaque) and dtype.type == "numpy.dtype" and dtype.args):
            return None
        name = dtype.args[0].decode("latin-1") if isinstance(dtype.args[0], bytes) else dtype.args[0]
        if not isinstance(name, str) or name not in _ARRAY_DTYPES:
            return None
        order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
        return (order if order in ("<", ">") else "|" if name[1:] == "1" else "<") + name

    @property
    def is_numeric(self) -> bool:
        return self.code() is not None and isinstance(self.content, (bytes, bytearray))


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
        if not _are_sizes(shape) or math.prod(shape) * int(code[2:]) != len(ref.content):
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


class _Builder:
    """Make what stands for the objects of a pickle."""

    def __init__(self) -> None:
        self.set_aside: dict[str, None] = {}

    def construct(self, name: str, arguments: tuple[Any, ...], is_class: bool) -> Any:
        if name in _MAPPINGS:
            return dict(arguments[0]) if arguments and type(arguments[0]) is dict else {}
        module, _, last = name.rpartition(".")
        if module in ("torch._utils", "torch._tensor") and last.startswith("_rebuild"):
            return self._rebuilt(last, arguments)
        if name == "torch.nn.parameter.Parameter" and arguments:
            return arguments[0]
        if module.startswith("numpy"):
            return _numpy_object(last, arguments)
        if name == "_codecs.encode":
            return arguments[0].encode("latin-1") if arguments and isinstance(arguments[0], str) else b""
        if name == "builtins.bytearray":
            return arguments[0] if arguments and isinstance(arguments[0], bytes) else b""
        if name == "copyreg._reconstructor" and arguments and isinstance(arguments[0], Name):
            return self.construct(arguments[0].path, (), True)
        if not self._is_data(name):
            self._check_set_aside(name, is_class)
        return Opaque(name, arguments)

    def build(self, value: Any, state: Any) -> None:
        if isinstance(value, ArrayRef) and isinstance(state, tuple) and len(state) == 5:
            _, value.shape, value.dtype, value.fortran, value.content = state
        elif isinstance(value, Opaque):
            value.state = state

    def _is_data(self, name: str) -> bool:
        return name in _DATA or name in _DTYPES or name.partition(".")[0] in _DATA_MODULES

    def _check_set_aside(self, name: str, is_class: bool) -> None:
        """Leave out objects of other packages' classes; refuse functions, and what the standard library could do."""
        top, last = name.partition(".")[0], name.rpartition(".")[2]
        if top in sys.stdlib_module_names or not (is_class or last[:1].isupper()):
            raise NeedsCode(name)
        self.set_aside[name] = None

    def _rebuilt(self, function: str, arguments: tuple[Any, ...]) -> Any:
        """The tensor that a function of torch would have made."""
        match function, arguments:
            case "_rebuild_tensor", (storage, offset, size, stride):
                return _tensor_ref(storage, offset, size, stride, None)
            case "_rebuild_tensor_v2", (storage, offset, size, stride, _, _, *metadata):
                return _tensor_ref(storage, offset, size, stride, None, metadata)
            case "_rebuild_tensor_v3", (storage, offset, size, stride, _, _, Name(dtype), *metadata):
                return _tensor_ref(storage, offset, size, stride, _DTYPES.get(dtype), metadata)
            case "_rebuild_from_type_v2", (Name(path), _, tuple() as inner, _):
                return self.construct(path, inner, False)
            case "_rebuild_meta_tensor_no_storage", _:
                return TensorRef(fault="has no values (it is on the device meta)")
            case "_rebuild_qtensor", _:
                return TensorRef(fault="is quantised")
            case "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor", _:
                return TensorRef(fault="is sparse")
            case (
                (
                    "_rebuild_parameter"
                    | "_rebuild_parameter_with_state"
                    | "_rebuild_device_tensor_from_cpu_tensor"
                    | "_rebuild_device_tensor_from_numpy"
                ),
                (TensorRef() | ArrayRef() as data, *_),
            ):
                return data
            case (("_rebuild_wrapper_subclass" | "_rebuild_nested_tensor"), _):
                return TensorRef(fault="is of a class of its own")
        raise MalformedPickle(f"a tensor is described wrongly ({function})")


def _tensor_ref(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None, metadata: Any = ()
) -> TensorRef:
    size = size.args[0] if isinstance(size, Opaque) and size.type == "torch.Size" and size.args else size
    if isinstance(storage, Opaque):
        return TensorRef(fault="was written by pickle.dump, not by torch.save")
    dtype = dtype or (storage.dtype if isinstance(storage, StorageRef) else None)
    if not (
        isinstance(storage, StorageRef)
        and dtype is not None
        and type(offset) is int
        and 0 <= offset < 2**60
        and _are_sizes(size)
        and _are_sizes(stride)
        and len(size) == len(stride)
    ):
        raise MalformedPickle("a tensor without sizes or storage")
    fault = "is conjugated or negated" if metadata and isinstance(metadata[0], dict) and metadata[0] else None
    return TensorRef(storage, dtype, offset, tuple(size), tuple(stride), fault)


def _are_sizes(sizes: Any) -> bool:
    return isinstance(sizes, tuple) and len(sizes) <= 64 and all(type(n) is int and 0 <= n < 2**60 for n in sizes)


def _numpy_object(function: str, arguments: tuple[Any, ...]) -> Any:
    """An array or number of NumPy, or what stands for another of its objects."""
    if function == "_reconstruct":
        return ArrayRef()
    if function == "_frombuffer" and len(arguments) == 4:
        content, dtype, shape, order = arguments
        return ArrayRef(dtype, shape, order == "F", content)
    if function == "scalar" and len(arguments) == 2:
        array = ArrayRef(arguments[0], (), False, arguments[1])
        code = array.code()
        if code is not None and array.is_numeric and len(array.content) == int(code[2:]):
            return np.frombuffer(array.content, dtype=code)[0].item()
    return Opaque(f"numpy.{function}", arguments)


@contextmanager
def _zip_file(path: Path) -> Iterator[TorchFile]:
    with zipfile.ZipFile(path) as archive:
        size = path.stat().st_size
        pickles = [name for name in archive.namelist() if name.partition("/")[2] == "data.pkl"]
        storage = _ArchiveStorage(archive, pickles[0].removesuffix("data.pkl"), size)
        order = storage.member("byteorder").strip() if storage.has("byteorder") else b"little"
        builder = _Builder()
        content = decode_pickle(io.BytesIO(storage.member("data.pkl")), builder.construct, _storage_ref, builder.build)
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
        builder = _Builder()

        def decode() -> Any:
            return decode_pickle(stream, builder.construct, refer, builder.build)

        elements: dict[str, int] = {}

        def refer(identifier: Any) -> StorageRef | Name:
            ref = _storage_ref(identifier)
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


def _storage_ref(identifier: Any) -> StorageRef | Name:
    """The storage that a persistent id of torch.save names: ("storage", class, key, device, elements, view or None)."""
    match identifier:
        case ("module" | b"module", Name() as model, *_):  # with its source, in whole models of old torch
            return model
        case ("storage" | b"storage", Name(path), str() | int() as key, _, int() as size, *view):
            module, _, cls = path.rpartition(".")
            known = module in ("torch", "torch.cuda", "torch.storage")
            if known and 0 <= size < 2**60 and (cls in _STORAGES or cls == "UntypedStorage"):
                offset = view[0][1] if view and isinstance(view[0], tuple) and len(view[0]) == 3 else 0
                if type(offset) is int and 0 <= offset < 2**60:
                    return StorageRef(str(key), _STORAGES.get(cls), size, offset)
            if known and cls.startswith("Q"):
                return StorageRef(str(key), torch.uint8, 0)
    raise MalformedPickle("a storage is described wrongly")


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
