"""Checkpoint files that were damaged, or made to do harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transferscope.models.checkpoint import load_checkpoint
from transferscope.system.errors import UserError

SCRIPT = Path(__file__).with_name("damaged_checkpoints.py")
READ = """
import resource, sys
import torch
from transferscope.system.errors import UserError
from transferscope.models.checkpoint import load_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        tensors = load_checkpoint(path).state_dict
        print("read", sum(tensor.numel() for tensor in tensors.values()))
    except UserError as error:
        print("refused", error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


class Made:
    """Is pickled as a call of `function`, with a state that it is given afterwards."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def read_in_another_process(*paths: Path) -> tuple[list[str], int]:
    """What `load_checkpoint` made of each file, and by how many kilobytes the peak of memory grew."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    *outcomes, growth = done.stdout.splitlines()
    return outcomes, int(growth)


def scalar() -> Any:
    return np.float64(0).__reduce__()[0]


def reconstruct() -> Any:
    return np.zeros(1).__reduce__()[0]


STATES = [
    (4, "|", None, None, None, 10**9, 10**9, 0),
    (4, "|", None, ("a",), {"a": (np.dtype("f4"), 0)}, -1, -1, 0),
    (3, "|", (np.dtype("O"), (10**9,)), None, None, 8, 1, 0),
    (3, "|", None, ("a",), {"a": ("x", 0)}, 8, 1, 0),
    (3,),
    (),
    {"a": 1},
]


def malformed() -> list[Any]:
    """What ends the process, or reads foreign memory, where it reaches the C code of NumPy."""
    types = [Made(np.dtype, (name, False, True), state) for name in ("M8", "O", "V8", "f4") for state in STATES]
    arrays = [Made(reconstruct(), (np.ndarray, (0,), b"b"), (1, (10**9,), dtype, False, b"x")) for dtype in types]
    arrays += [Made(reconstruct(), (np.ndarray, (10**12,), b"d")), Made(reconstruct(), (np.dtype, (3,), b"d"))]
    objects = np.dtype("O")
    arrays += [Made(reconstruct(), (np.ndarray, (0,), b"b"), (1, (9,), objects, False, b"x" * 72))]
    scalars = [Made(scalar(), (dtype, b"x" * 64)) for dtype in [*types, objects, np.dtype("V9"), np.dtype("M8[s]")]]
    return types + arrays + scalars + [Made(scalar(), (np.dtype("f8"), b"")), Made(scalar(), (np.dtype("f8"), 3))]


def test_malformed_objects_of_numpy_never_reach_its_code(tmp_path: Path) -> None:
    """Beside the weights they do no harm and as weights they are no tensors, where `dtype.__setstate__` would crash."""
    paths = []
    for number, value in enumerate(malformed()):
        for key, content in (("beside", {"state_dict": {"a.b": torch.zeros(3)}, "x": value}), ("as", {"a.b": value})):
            paths.append(tmp_path / f"{key}_{number}.pth")
            torch.save(content, paths[-1])
    outcomes, growth = read_in_another_process(*paths)
    assert outcomes[::2] == ["read 3"] * (len(paths) // 2)
    assert all(outcome.startswith("refused") for outcome in outcomes[1::2])
    assert growth < 200_000


def archive_of(content: bytes, **members: bytes) -> bytes:
    """A file of torch.save with this pickle and these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in {"data.pkl": content, "version": b"3\n", **members}.items():
            archive.writestr(f"a/{name}", value)
    return stream.getvalue()


def tensor(
    *, size: tuple[Any, ...] = (1,), stride: tuple[Any, ...] = (1,), offset: Any = 0, elements: Any = 1
) -> bytes:
    """The pickle of a state dict with one tensor that claims these numbers."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", elements) if isinstance(value, Storage) else None

    stream = io.BytesIO()
    made = Made(torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, None))
    Pickler(stream, 2).dump({"a.b": made})
    return stream.getvalue()


FOUR = {"data/0": b"\0\0\0\0"}
CLAIMS = {
    "elements": archive_of(tensor(elements=10**12), **FOUR),
    "size": archive_of(tensor(size=(10**12,)), **FOUR),
    "size and elements": archive_of(tensor(size=(10**12,), elements=10**12), **FOUR),
    "product": archive_of(tensor(size=(2**40, 2**40), stride=(0, 0)), **FOUR),
    "expanded": archive_of(tensor(size=(10**11,), stride=(0,)), **FOUR),
    "offset": archive_of(tensor(offset=2**50), **FOUR),
    "negative offset": archive_of(tensor(offset=-1), **FOUR),
    "negative size": archive_of(tensor(size=(-1,)), **FOUR),
    "negative stride": archive_of(tensor(size=(2,), stride=(-1,)), **FOUR),
    "stride": archive_of(tensor(size=(2,), stride=(2**61,)), **FOUR),
    "lengths": archive_of(tensor(size=(1, 1)), **FOUR),
    "types": archive_of(tensor(size=("x",), stride=(None,)), **FOUR),
    "many sizes": archive_of(tensor(size=(1,) * 1000, stride=(1,) * 1000), **FOUR),
    "no storage": archive_of(tensor()),
    "short storage": archive_of(tensor(), **{"data/0": b"\0"}),
    "text": archive_of(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x."),
    "bytes": archive_of(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x."),
    "memo": archive_of(b"\x80\x02}r\xff\xff\xff\x7f."),
    "bytearray": archive_of(pickle.dumps({"a.b": Made(bytearray, (2**36,))}, 2)),
    "frame": archive_of(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}."),
    "constructor": archive_of(pickle.dumps({"a.b": Made(torch.FloatTensor, (10**11,))}, 2)),
    "nested": archive_of(b"\x80\x02}" + b"\x85" * 500_000 + b"."),
    "nested key": archive_of(b"\x80\x02})" + b"\x85" * 500_000 + b"Ns."),
    "nested lists": archive_of(b"\x80\x02" + b"](" * 200_000 + b"e" * 200_000 + b"."),
    "no header": archive_of(b""),
    "old": pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps({}, 2)
    + tensor(elements=2**40)
    + pickle.dumps(["0"], 2)
    + struct.pack("<q", 2**40),
    "old, negative": pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps({}, 2)
    + tensor()
    + pickle.dumps(["0"], 2)
    + struct.pack("<q", -5)
    + bytes(20),
}


def test_claims_of_any_size_are_one_line_and_take_no_memory(tmp_path: Path) -> None:
    """Sizes, strides, offsets, texts and nesting beyond what the file has."""
    for name, content in CLAIMS.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    outcomes, growth = read_in_another_process(*(tmp_path / f"{name}.pth" for name in CLAIMS))
    for name, outcome in zip(CLAIMS, outcomes, strict=True):
        assert outcome.startswith(f"refused checkpoint {tmp_path / name}.pth"), (name, outcome)
    assert growth < 600_000


def test_the_files_that_these_are_made_from_are_read(tmp_path: Path) -> None:
    """So that it is the claims that are refused."""
    (tmp_path / "a.pth").write_bytes(archive_of(tensor(), **FOUR))
    assert load_checkpoint(tmp_path / "a.pth").state_dict["a.b"].tolist() == [0.0]


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A thousand names for the same megabyte would be a gigabyte."""
    torch.save({f"a.{n}": torch.zeros(2**18) + n for n in range(3)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    shared = content["data/0"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in content.items():
            if not name.startswith("data/"):
                archive.writestr(f"a/{name}", value)
        archive.writestr("a/data/0", shared)
        first = archive.getinfo("a/data/0")
        for number in (1, 2):
            copy = zipfile.ZipInfo(f"a/data/{number}")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.compress_size = copy.file_size = len(shared)
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
    (tmp_path / "b.pth").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match=r"b\.pth is damaged: its tensors claim"):
        load_checkpoint(tmp_path / "b.pth")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """It may grow a thousandfold; torch.save does not compress."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor(size=(10**7,), elements=10**7))
        archive.writestr("a/data/0", bytes(4 * 10**7))
    (tmp_path / "a.pth").write_bytes(stream.getvalue())
    outcomes, growth = read_in_another_process(tmp_path / "a.pth")
    assert "compressed, which torch.save does not do" in outcomes[0]
    assert growth < 20_000


@pytest.mark.parametrize(
    "call",
    [(os.system, ("true",)), (eval, ("1",)), (getattr, (1, "real")), (subprocess.Popen, (["true"],)), (len, ("1",))],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_would_run_code_is_refused_by_name(
    tmp_path: Path, call: tuple[Callable[..., Any], tuple[Any, ...]], protocol: int
) -> None:
    """Even beside the weights, so that nobody passes on a file that does harm elsewhere."""
    torch.save({"model": {"a.b": torch.zeros(1)}, "x": Made(*call)}, tmp_path / "a.pth", pickle_protocol=protocol)
    name = call[0].__qualname__
    with pytest.raises(UserError, match=rf"needs? code of their own, which is not run \(\w+\.{name}\)") as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.slow
def test_damage_by_chance_is_one_line(tmp_path: Path) -> None:
    """Whatever bytes, members or header fields are changed: read, or refused in one line; no crash, no memory.

    `CHECKPOINT_FUZZ_FILES=30000` sets the number of files.
    """
    total, batch = int(os.environ.get("CHECKPOINT_FUZZ_FILES", "1000")), 5000
    outcomes: list[dict[str, Any]] = []
    for first in range(0, total, batch):
        command = [sys.executable, str(SCRIPT), str(tmp_path), str(first), str(min(batch, total - first))]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        died = f"exit {done.returncode} at seed {(tmp_path / 'seed').read_text()}: {done.stderr[-1000:]}"
        assert done.returncode == 0, died
        outcomes.append(json.loads(done.stdout.splitlines()[-1]))
    assert [fault for outcome in outcomes for fault in outcome["faults"]] == []
    assert max(outcome["growth"] for outcome in outcomes) < 2**30
    read, refused = (sum(outcome[key] for outcome in outcomes) for key in ("read", "refused"))
    assert read + refused == total
    assert min(read, refused) > total / 20
