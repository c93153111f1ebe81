"""References to tensors and arrays, made from what a pickle of `torch.save` describes.

No code of the file is run. Each object becomes plain data, a reference to a tensor's bytes, or what stands for it
(`pickle_data.Opaque`), and each size is checked when the tensor is read (`torch_file`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from transferscope.models.pickle_data import MalformedPickle, Name, NeedsCode, Opaque

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


class ObjectBuilder:
    """Make what stands for the objects of a pickle."""

    def __init__(self) -> None:
        self.set_aside: dict[str, None] = {}

    def construct(self, name: str, arguments: tuple[Any, ...], is_class: bool) -> Any:
        """The data, reference or `Opaque` for a call of `name`; NeedsCode for a function that is not known."""
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
        """Give an array or an `Opaque` the state that the pickle sets."""
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
        and are_sizes(size)
        and are_sizes(stride)
        and len(size) == len(stride)
    ):
        raise MalformedPickle("a tensor without sizes or storage")
    fault = "is conjugated or negated" if metadata and isinstance(metadata[0], dict) and metadata[0] else None
    return TensorRef(storage, dtype, offset, tuple(size), tuple(stride), fault)


def are_sizes(sizes: Any) -> bool:
    """True for a tuple of at most 64 whole numbers from 0 to 2^60."""
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


def storage_ref(identifier: Any) -> StorageRef | Name:
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
