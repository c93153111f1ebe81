"""Pickles decoded as data."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferscope.models.pickle_data import MalformedPickle, Name, NeedsCode, Opaque, decode_pickle

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=300)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=5)
    ),
)


def construct(name: str, arguments: tuple[Any, ...], is_class: bool) -> Any:
    if name == "_codecs.encode":  # bytes, in protocols before 3
        return arguments[0].encode(arguments[1])
    return b"" if name == "builtins.bytes" else Opaque(name, arguments)


@given(value=VALUES, protocol=st.integers(0, 5))
@settings(deadline=None, max_examples=100)
def test_plain_values_are_those_that_python_reads(value: Any, protocol: int) -> None:
    """Numbers, texts, bytes, lists, tuples and dicts, in every protocol; the stream ends behind the pickle."""
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
    decoded = decode_pickle(stream, construct)
    assert decoded == value
    assert repr(decoded) == repr(value)
    assert stream.read() == b"rest"


@pytest.mark.parametrize("protocol", range(6))
def test_shared_and_circular_values_stay_so(protocol: int) -> None:
    """By the pickle's memo."""
    shared: list[Any] = [1]
    shared.append(shared)
    decoded = decode_pickle(io.BytesIO(pickle.dumps({"a": shared, "b": shared}, protocol)), construct)
    assert decoded["a"] is decoded["b"]
    assert decoded["a"][1] is decoded["a"]


class Thing:
    created = 0

    def __new__(cls, *_: Any) -> Thing:
        cls.created += 1
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[int]:
        return (3,)

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("called")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_are_names_and_values(protocol: int) -> None:
    """The class is not looked up, nothing of it is called."""
    thing = Thing()
    thing.colour = "red"  # type: ignore[attr-defined]
    created = Thing.created
    decoded = decode_pickle(io.BytesIO(pickle.dumps([thing, Thing, len], protocol)), construct)
    assert Thing.created == created
    assert isinstance(decoded[0], Opaque)
    assert decoded[0].type.endswith(".Thing")
    assert (decoded[0].args, decoded[0].state) == ((3,), {"colour": "red"})
    assert decoded[1] == Name(f"{Thing.__module__}.Thing")
    assert decoded[2] == Name("builtins.len")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}q\x00h\x01.",
        b"\x80\x02]K\x01s.",
        b"\x80\x02(K\x01u.",
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02t.",
        b"\x80\x04\x82\x01.",
        b"\x80\x05\x97.",
        b"\x80\x02\xff.",
        b"cos\nsystem\n",
    ],
)
def test_contradictions_are_refused(content: bytes) -> None:
    """Ends too early, empty stacks, items without a list, calls of numbers, registered extensions."""
    with pytest.raises(MalformedPickle):
        decode_pickle(io.BytesIO(content), construct)


def test_what_was_made_cannot_be_called() -> None:
    """Else a stand-in would be a way to code."""
    content = b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R)R."
    with pytest.raises(NeedsCode, match=r"a call of an object of the type functools\.partial"):
        decode_pickle(io.BytesIO(content), construct)


def test_deep_keys_are_not_hashed() -> None:
    """Hashing tuples in tuples recurses in C, without a limit, and would end the process."""
    content = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."
    (key,) = decode_pickle(io.BytesIO(content), construct)
    assert isinstance(key, Opaque)


def test_the_number_of_instructions_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take a hundred bytes of memory for one of the file."""
    monkeypatch.setattr("transferscope.models.pickle_data.MAX_INSTRUCTIONS", 1000)
    assert decode_pickle(io.BytesIO(b"\x80\x02" + b"]0" * 490 + b"}."), construct) == {}
    with pytest.raises(MalformedPickle, match="more than 1,000 instructions"):
        decode_pickle(io.BytesIO(b"\x80\x02" + b"]0" * 510 + b"}."), construct)
