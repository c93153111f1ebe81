"""Pickles decoded as data: no name in them is looked up and nothing is called.

`pickletools` splits the bytes into instructions; a small stack machine puts plain containers together. An object of a
class, or the result of a function, is handed to `construct` with the name that the pickle gives. Unlike an unpickler
with a list of allowed names, no constructor of Python, NumPy or torch ever receives a value of the file.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

MAX_INSTRUCTIONS = 5_000_000
"""Bounds memory below 1 GB, whatever the file holds; a ResNet-50 has 11,000, with Adam's state 26,000."""
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_HASHABLE = (str, int, float, bool, bytes, type(None))


class MalformedPickle(ValueError):
    """The bytes are no pickle, or one whose instructions contradict each other."""


class NeedsCode(MalformedPickle):
    """The pickle calls a function, or makes an object, that is more than data; the text is its name."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle refers to, as `module.name`."""

    path: str


@dataclass(eq=False, slots=True)
class Opaque:
    """An object that is known by the name of its class only, with the values that it was given."""

    type: str
    args: tuple[Any, ...] = ()
    state: Any = None
    mapping: dict[Any, Any] = field(default_factory=dict)


class Stream(Protocol):
    """Bytes that are read in order; `read` of more than there is returns the rest."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...


Construct = Callable[[str, tuple[Any, ...], bool], Any]
"""`(name, arguments, is_class)` -> the value that stands for the object."""


def decode_pickle(
    stream: Stream,
    construct: Construct,
    persistent: Callable[[Any], Any] | None = None,
    build: Callable[[Any, Any], None] | None = None,
) -> Any:
    """The value of the pickle at the stream's position: lists, tuples, dicts, numbers, texts, `Name` and `Opaque`.

    `construct` makes what stands for an object, `build` gives such a value its state (default: `Opaque.state`), and
    `persistent` resolves references to what lies outside of the pickle. The stream stands behind the pickle afterwards.

    Raises MalformedPickle; what `construct`, `persistent` and `build` raise becomes one.
    """
    machine = _Machine(construct, persistent, build or _set_state)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
            if count > MAX_INSTRUCTIONS:
                raise MalformedPickle(f"more than {MAX_INSTRUCTIONS:,} instructions")
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except MalformedPickle:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise MalformedPickle(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _set_state(value: Any, state: Any) -> None:
    if isinstance(value, Opaque):
        value.state = state


class _Machine:
    def __init__(
        self, construct: Construct, persistent: Callable[[Any], Any] | None, build: Callable[[Any, Any], None]
    ) -> None:
        self.construct, self.persistent, self.build = construct, persistent, build
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        else:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise MalformedPickle(f"the instruction {name} has no meaning in a file of weights")
            method(argument)

    def _above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._above_mark()

    def _pop_mark(self, _: Any) -> None:
        self._above_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_set(self, _: Any) -> None:
        self.stack.append(Opaque("builtins.set"))

    def _list(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append(items)

    def _tuple(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append(tuple(items))

    def _tuple1(self, _: Any) -> None:
        self.stack.append((self.stack.pop(),))

    def _tuple2(self, _: Any) -> None:
        last, first = self.stack.pop(), self.stack.pop()
        self.stack.append((first, last))

    def _tuple3(self, _: Any) -> None:
        last, second, first = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append((first, second, last))

    def _dict(self, _: Any) -> None:
        items = self._above_mark()
        self.stack.append({})
        self._set_items(items)

    def _frozenset(self, _: Any) -> None:
        self._above_mark()
        self.stack.append(Opaque("builtins.frozenset"))

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        items = self._above_mark()
        self._extend(items)

    def _additems(self, _: Any) -> None:
        items = self._above_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise MalformedPickle(f"items are added to a {type(target).__name__}")

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _setitems(self, _: Any) -> None:
        items = self._above_mark()
        self._set_items(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        mapping = target.mapping if isinstance(target, Opaque) else target
        if type(mapping) is not dict or len(items) % 2:
            raise MalformedPickle("keys without a mapping or without values")
        for key, value in zip(items[::2], items[1::2], strict=True):
            mapping[_as_key(key)] = value

    def _global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(_name(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise MalformedPickle("a name that is no text")
        self.stack.append(_name(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._made(function, arguments, False))

    def _newobj(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        self.stack.append(self._made(cls, arguments, True))

    def _newobj_ex(self, _: Any) -> None:
        _keywords, arguments, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self.stack.append(self._made(cls, arguments, True))

    def _inst(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        arguments = tuple(self._above_mark())
        self.stack.append(self._made(_name(module, name), arguments, True))

    def _obj(self, _: Any) -> None:
        cls, *arguments = self._above_mark()
        self.stack.append(self._made(cls, tuple(arguments), True))

    def _made(self, function: Any, arguments: Any, is_class: bool) -> Any:
        if not isinstance(function, Name):
            described = function.type if isinstance(function, Opaque) else type(function).__name__
            raise NeedsCode(f"a call of an object of the type {described}")
        if type(arguments) is not tuple:
            raise MalformedPickle("arguments that are no tuple")
        return self.construct(function.path, arguments, is_class)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def _persid(self, argument: Any) -> None:
        self.stack.append(argument)
        self._binpersid(None)

    def _binpersid(self, _: Any) -> None:
        if self.persistent is None:
            raise MalformedPickle("it refers to data outside of the pickle")
        self.stack.append(self.persistent(self.stack.pop()))


def _name(module: str, name: str) -> Name:
    """The name in Python 3: protocols up to 2 have those of Python 2."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return Name(f"{module}.{name}")


def _as_key(key: Any) -> Any:
    """The key, or an object in its place: hashing tuples in tuples without end would overflow the C stack."""
    if isinstance(key, (*_HASHABLE, Name, Opaque)) or getattr(type(key), "__hash__", None) is object.__hash__:
        return key
    if type(key) is tuple and all(isinstance(part, _HASHABLE) for part in key):
        return key
    return Opaque(f"builtins.{type(key).__name__}")
