"""Files of torch.save, as training scripts leave them."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import io
import pickle
import random
import types
import uuid
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.models.checkpoint import load_checkpoint
from transferscope.system.errors import UserError

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}
PREFIXED = {f"module.{key}": value for key, value in WEIGHTS.items()}
COMPILED = {f"module._orig_mod.{key}": value for key, value in WEIGHTS.items()}
LIGHTNING = {f"model.{key}": value for key, value in WEIGHTS.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt"])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        PREFIXED,
        COMPILED,
        {"state_dict": LIGHTNING, "callbacks": {}, "hyper_parameters": {"lr": 0.1}},
        {"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3},
        {"epoch": 3, "arch": "resnet50", "state_dict": PREFIXED, "best_acc1": torch.tensor(76.1)},
        {"model": {"state_dict": WEIGHTS}, "args": argparse.Namespace(lr=0.1)},
        {"net": WEIGHTS, "best_auc": np.float64(0.78), "n": np.int64(3)},
    ],
)
def test_weights_are_found_under_the_usual_keys_and_prefixes(tmp_path: Path, suffix: str, content: Any) -> None:
    """DataParallel, torch.compile, Lightning; nested once or twice; beside command line and metrics."""
    path = tmp_path / f"checkpoint{suffix}"
    torch.save(content, path)
    state_dict = load_checkpoint(path).state_dict
    assert list(state_dict) == list(WEIGHTS)
    assert all(torch.equal(state_dict[key], WEIGHTS[key]) for key in WEIGHTS)


def test_files_of_old_torch_are_read(tmp_path: Path) -> None:
    """The format before archives."""
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(tmp_path / "old.pth").state_dict["fc.weight"], WEIGHTS["fc.weight"])


def test_epoch_is_taken_and_arch_is_a_hint(tmp_path: Path) -> None:
    """`resnet50` may be anybody's, so it does not name the architecture."""
    torch.save({"state_dict": WEIGHTS, "epoch": 90, "arch": "resnet50"}, tmp_path / "a.pth")
    metadata = load_checkpoint(tmp_path / "a.pth").metadata
    assert (metadata.epoch, metadata.architecture, metadata.extra) == (90, None, {"arch": "resnet50"})


def test_a_prefix_that_only_some_keys_have_is_part_of_their_names(tmp_path: Path) -> None:
    """A submodule may be called `module`."""
    weights = {"module.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "a.pth")
    assert list(load_checkpoint(tmp_path / "a.pth").state_dict) == list(weights)


class Harmful:
    """Would write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return Path.write_text, (self.path, "owned")


@pytest.mark.parametrize("archive", [True, False])
def test_no_code_is_run(tmp_path: Path, archive: bool) -> None:
    """The error names the file and the remedy; the code in the file was not called."""
    content = {"state_dict": WEIGHTS, "x": Harmful(tmp_path / "trace")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=r"a\.pth holds objects that need code .*save only model\.state_dict\(\)"):
        load_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "trace").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    """torch.save(model) needs the class to be trusted."""
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"a whole model of the class torch\.nn\.modules\.linear\.Linear.*save only model"
    ):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "optimizer": {}}, r"holds no state_dict \(its keys are epoch, optimizer\)"),
        ([torch.zeros(1)], r"holds no state_dict \(it is a list\)"),
        ({}, r"holds no state_dict \(it is empty\)"),
        (Path, r"holds no state_dict \(it is the class or function pathlib\.Path, without values\)"),
    ],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, content: Any, message: str) -> None:
    """Keys or type."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
def test_a_cut_off_file_is_named(tmp_path: Path, part: float, archive: bool) -> None:
    """In either format, wherever it ends."""
    path = tmp_path / "cut.pth"
    torch.save({"state_dict": {"a": torch.rand(1000)}}, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"cut\.pth"):
        load_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("archive", [True, False])
def test_tensors_are_those_that_torch_reads(tmp_path: Path, archive: bool, protocol: int) -> None:
    """Of any dtype and layout in memory; views of one storage, transposed, strided, expanded, empty, scalar."""
    base = torch.rand(100)
    content = {
        "slice": base[10:20],
        "whole": base,
        "transposed": base.view(10, 10).t(),
        "strided": base.view(10, 10)[::2, 1::3],
        "expanded": torch.ones(1).expand(5),
        "channels.last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "parameter": nn.Parameter(torch.rand(3)),
        "buffer": nn.Buffer(torch.rand(3)),
    }
    content |= {str(dtype): torch.ones(3).to(dtype) for dtype in (torch.int8, torch.bool, torch.half, torch.complex64)}
    content |= {str(dtype): torch.ones(3).to(dtype) for dtype in (torch.bfloat16, torch.float64, torch.int16)}
    if archive:  # torch cannot read these from its older format
        content |= {str(dtype): torch.ones(3).to(dtype) for dtype in (torch.uint16, torch.float8_e4m3fn)}
    path = tmp_path / "a.pth"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    state_dict = load_checkpoint(path).state_dict
    if protocol == 2:  # the only one that torch reads without running code
        content = torch.load(path, weights_only=True)
    assert list(state_dict) == list(content)
    for key, value in content.items():
        assert (state_dict[key].dtype, state_dict[key].shape) == (value.dtype, value.shape)
        assert torch.equal(
            state_dict[key].view(torch.uint8) if "float8" in key else state_dict[key],
            value.view(torch.uint8) if "float8" in key else value,
        )


def test_shared_storage_stays_shared(tmp_path: Path) -> None:
    """Tied weights take their memory once."""
    tied = torch.rand(1000)
    torch.save({"a": tied, "b": tied}, tmp_path / "a.pth")
    state_dict = load_checkpoint(tmp_path / "a.pth").state_dict
    assert state_dict["a"].data_ptr() == state_dict["b"].data_ptr()


@pytest.mark.parametrize("archive", [True, False])
def test_big_endian_files_are_read(tmp_path: Path, archive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As files of big-endian machines would be, here of one that pretends to be one while it saves."""
    weights = {"a": torch.arange(5.0), "b": torch.arange(4), "c": torch.tensor([1 + 2j])}
    swapped = {key: torch.from_numpy(value.numpy().byteswap()) for key, value in weights.items()}
    monkeypatch.setattr("sys.byteorder", "big")
    stream = io.BytesIO()
    torch.save(swapped, stream, _use_new_zipfile_serialization=archive)
    monkeypatch.undo()
    content = stream.getvalue()
    if not archive and b"little_endian" in content:
        content = content.replace(b"little_endianq\x03\x88", b"little_endianq\x03\x89")
    (tmp_path / "a.pth").write_bytes(content)
    state_dict = load_checkpoint(tmp_path / "a.pth").state_dict
    assert all(torch.equal(state_dict[key], value) for key, value in weights.items())


class Mode(enum.Enum):
    FAST = 1


class Settings:
    def __init__(self) -> None:
        self.rate = 0.1


class Attributes(dict):  # type: ignore[type-arg]
    pass


PLAIN = {
    "array": np.zeros((2, 3), dtype=">f4"),
    "objects": np.array(["a", None], dtype=object),
    "structured": np.zeros(2, dtype=[("x", "f4"), ("y", "i8")]),
    "texts": np.array(["a", "bc"]),
    "date": np.datetime64("2020-01-01"),
    "number": np.float32(2.5),
    "dtype": np.dtype("f8"),
    "numpy.random": np.random.RandomState(0).get_state(),
    "path": Path("a/b"),
    "pure": PurePosixPath("c"),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], 3),
    "arguments": argparse.Namespace(lr=0.1, out=Path("x")),
    "namespace": types.SimpleNamespace(a=1),
    "datetime": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "timedelta": datetime.timedelta(seconds=1),
    "decimal": decimal.Decimal("1.5"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=3),
    "set": {1, 2},
    "frozen": frozenset([1]),
    "complex": 1j,
    "bytes": b"\xff\x00",
    "bytearray": bytearray(b"abc"),
    "range": range(3),
    "slice": slice(1, 2),
    "large": 10**50,
    "random": random.getstate(),
    "dtype of torch": torch.float16,
    "device": torch.device("cpu"),
    "size": torch.Size([1, 2]),
    "generator": torch.get_rng_state(),
    "class": torch.optim.SGD,
    "function": len,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", list(PLAIN))
def test_data_beside_the_weights_does_no_harm(tmp_path: Path, name: str, protocol: int) -> None:
    """Whatever plain types of Python, NumPy and torch it has, and for any protocol of pickle."""
    path = tmp_path / "a.pth"
    torch.save({"state_dict": WEIGHTS, "x": {name: PLAIN[name]}}, path, pickle_protocol=protocol)
    checkpoint = load_checkpoint(path)
    assert all(torch.equal(checkpoint.state_dict[key], WEIGHTS[key]) for key in WEIGHTS)
    assert "notes" not in checkpoint.metadata.extra


@pytest.mark.parametrize("value", [Mode.FAST, Settings(), Attributes(a=1)], ids=["enum", "object", "mapping"])
def test_objects_of_other_classes_are_left_out_with_a_sentence(tmp_path: Path, value: object) -> None:
    """Their class is named; it is neither imported nor called."""
    torch.save({"state_dict": WEIGHTS, "x": value}, tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    assert list(checkpoint.state_dict) == list(WEIGHTS)
    (note,) = checkpoint.metadata.extra["notes"]
    assert note.startswith("left out objects of classes that are not read: ")
    assert note.endswith(f".{type(value).__name__}")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i4", "u1", "?"])
def test_arrays_of_numpy_are_weights(tmp_path: Path, dtype: str) -> None:
    """In a file of torch.save and in a plain pickle; the order of bytes and of axes is respected."""
    arrays = {"a.weight": np.asfortranarray(np.arange(6).reshape(2, 3).astype(dtype)), "a.bias": np.ones(2, dtype)}
    torch.save({"model": arrays}, tmp_path / "a.pth")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    for name in ("a.pth", "a.pkl"):
        state_dict = load_checkpoint(tmp_path / name).state_dict
        assert {key: value.numpy().tolist() for key, value in state_dict.items()} == {
            key: value.tolist() for key, value in arrays.items()
        }


def test_a_number_of_numpy_may_be_the_epoch(tmp_path: Path) -> None:
    """As counters of training loops often are."""
    torch.save({"model": WEIGHTS, "epoch": np.int64(7)}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth").metadata.epoch == 7


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.eye(3).to_sparse()}, "tensor 'a' is sparse"),
        ({"a": torch.eye(3).to_sparse_csr()}, "tensor 'a' is sparse"),
        ({"a": torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8)}, "tensor 'a' is quantised"),
        ({"a": torch.empty(3, device="meta")}, r"tensor 'a' has no values \(it is on the device meta\)"),
        ({"a": torch.tensor([1j]).conj()}, "tensor 'a' is conjugated"),
        ({0: torch.zeros(2), 1: torch.zeros(2)}, "has keys that are no names"),
        ({"a": torch.zeros(2), 1: torch.zeros(2)}, "has keys that are no names"),
        (torch.zeros(3), "it is a tensor"),
        (np.zeros(3), "it is an array of NumPy"),
        (None, "it is a NoneType"),
        ({"model": nn.Linear(2, 2), "epoch": 3}, "holds a whole model of the class torch.nn.modules.linear.Linear"),
        (
            {
                "fc.scale": torch.tensor(0.1),
                "fc._packed_params.dtype": torch.qint8,
                "fc._packed_params._packed_params": (),
            },
            "holds a quantised network: give the file of the float network",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_named_in_one_line(tmp_path: Path, content: Any, message: str, archive: bool) -> None:
    """Layouts without plain numbers, keys that are no names, and what is no state dict."""
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=archive)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)


def test_a_mapping_that_holds_itself_is_read(tmp_path: Path) -> None:
    """The weights are found; the circle is walked once."""
    content: dict[str, Any] = {"a": {}}
    content["a"]["back"] = content
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no state_dict"):
        load_checkpoint(tmp_path / "a.pth")
    torch.save(content | {"model": WEIGHTS}, tmp_path / "a.pth")
    assert list(load_checkpoint(tmp_path / "a.pth").state_dict) == list(WEIGHTS)


def test_only_the_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of an optimizer, twice the size of the weights, stays on the disk."""
    state = {0: {"exp_avg": torch.rand(5000), "exp_avg_sq": torch.rand(5000)}}
    torch.save({"model": WEIGHTS, "optimizer": {"state": state}}, tmp_path / "a.pth")
    sizes: list[int] = []
    whole = zipfile.ZipFile.read

    def read(self: zipfile.ZipFile, name: Any, *rest: Any) -> bytes:
        sizes.append(len(content := whole(self, name, *rest)))
        return content

    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    load_checkpoint(tmp_path / "a.pth")
    assert max(sizes) < 5000


def test_without_values_shapes_and_dtypes_are_those_of_the_file(tmp_path: Path) -> None:
    """For checks that should cost no reading."""
    torch.save({"a": torch.rand(2, 3).half(), "b": torch.arange(4)}, tmp_path / "a.pth")
    state_dict = load_checkpoint(tmp_path / "a.pth", values=False).state_dict
    assert {key: (value.device.type, tuple(value.shape), value.dtype) for key, value in state_dict.items()} == {
        "a": ("meta", (2, 3), torch.float16),
        "b": ("meta", (4,), torch.int64),
    }


@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_a_changed_byte_of_an_archive_is_noticed(tmp_path: Path, position: float) -> None:
    """Archives have a checksum of each member."""
    torch.save({"a": torch.rand(10000)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[int(position * len(content))] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth is cut off or no file of torch\.save \(Bad CRC-32"):
        load_checkpoint(tmp_path / "a.pth")
