"""Damage valid checkpoint files by seed and read them: a script, so that a crash ends another process than the tests.

`python damaged_checkpoints.py FOLDER FIRST COUNT` reads the files of the seeds FIRST, FIRST + 1, ... and prints JSON:
how many were read, how many refused, the faults (seed and error), and by how many bytes the peak of memory grew.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import pathlib
import pickle
import random
import resource
import struct
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint, save_checkpoint
from transferscope.system.errors import UserError

WEIGHTS = {f"module.layer.{i}.weight": torch.arange(12.0).view(3, 4) + i for i in range(3)}
BESIDE = {
    "epoch": 3,
    "mean": np.zeros((2, 3), dtype="f4"),
    "best": np.float64(0.7),
    "names": np.array(["a", None], dtype=object),
    "when": np.datetime64("2020-01-01"),
    "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
}
TENSORS = {
    "a.half": torch.ones(3).half(),
    "b.view": torch.arange(20.0).view(4, 5).t()[1:, ::2],
    "c.empty": torch.zeros(0, 7),
    "d.small": torch.ones(4, dtype=torch.uint16),
    "e.parameter": torch.nn.Parameter(torch.ones(2)),
}
HUGE = (0, 1, -1, 2**7, 2**15, 2**31 - 1, -(2**31), 10**6, 10**9)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "E8M0", "C64", "X", "")


def valid_files() -> list[tuple[str, bytes]]:
    """One file of each kind that is read, as its kind and its bytes."""
    files = []
    for content in (WEIGHTS, {"state_dict": WEIGHTS} | BESIDE, TENSORS):
        for archive, protocol in ((True, 2), (True, 4), (False, 2)):
            stream = io.BytesIO()
            torch.save(content, stream, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
            files.append(("archive" if archive else "pickles", stream.getvalue()))
    arrays = {"model": {name: value.numpy() for name, value in WEIGHTS.items()}} | BESIDE
    files += [("pickles", pickle.dumps(arrays, protocol)) for protocol in (2, 4, 5)]
    files.append(("safetensors", save({"a": torch.ones(2, 3), "b": torch.ones(0), "c": torch.ones(5).bfloat16()})))
    return files


def own_file(folder: Path) -> tuple[str, bytes]:
    """A file that the project wrote."""
    save_checkpoint(Checkpoint(dict(WEIGHTS), CheckpointMetadata(epoch=3)), folder / "own.safetensors")
    return "safetensors", (folder / "own.safetensors").read_bytes()


def damaged(kind: str, content: bytes, draw: random.Random) -> bytes:
    """The file with one to four faults, either of its bytes or of the parts that it consists of."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        way = draw.random()
        if kind == "archive" and way < 0.7:
            content = _with_other_members(content, draw)
        elif kind == "safetensors" and way < 0.7:
            content = _with_other_header(content, draw)
        else:
            content = _with_other_bytes(content, draw)
    return content


def _with_other_bytes(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(20)))
    changed, at = bytearray(content), draw.randrange(len(content))
    match draw.randrange(8):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            changed[at] = draw.choice(b"cR}]()NtUXJKM.qh\x80\x81\x85\x86\x87\x8a\x93\x94\x95\xff\x00b0eus")
        case 2:
            changed[at : at + 4] = struct.pack("<i", draw.choice(HUGE))
        case 3:
            changed[at : at + 8] = struct.pack("<q", draw.choice((2**62, -1, 2**40, 2**32, 7)))
        case 4:
            del changed[at : at + draw.randint(1, 40)]
        case 5:
            other = draw.randrange(len(content))
            changed[at:at] = content[other : other + draw.randint(1, 60)]
        case 6:
            del changed[at:]
        case _:
            # A small number of the pickle becomes a large one, with the instruction that belongs to it.
            at = changed.find(b"K", at)
            if at >= 0:
                number = draw.choice((10**12, -(10**12), 2**62, 2**80, 10**5))
                changed[at : at + 2] = pickle.dumps(number, 2)[2:-1]
    return bytes(changed)


def _with_other_members(content: bytes, draw: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # damaged before
        return _with_other_bytes(content, draw)
    if not members:
        return content
    at = draw.randrange(len(members))
    pickled = next((number for number, (name, _) in enumerate(members) if name.endswith("data.pkl")), at)
    name, value = members[at]
    match draw.randrange(8):
        case 0:
            del members[at]
        case 1:
            members[at] = (name + draw.choice("x/"), value)
        case 2:
            members[at] = (name, value[: draw.randrange(len(value) + 1)])
        case 3:
            members.append((name, value * 2))
        case _:
            members[pickled] = (members[pickled][0], _with_other_bytes(members[pickled][1], draw))
    stream, way = io.BytesIO(), draw.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(stream, "w", way) as archive:
        for name, value in members:
            archive.writestr(name, value)
    return stream.getvalue()


def _with_other_header(content: bytes, draw: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    try:
        header: Any = json.loads(content[8 : 8 + length])
        name = draw.choice(list(header))
        match draw.randrange(7):
            case 0:
                header[name]["dtype"] = draw.choice(DTYPES)
            case 1:
                header[name]["shape"] = [
                    draw.choice((0, 1, -1, 2**31, 2**63, 2**64, 1.5, "x", None)) for _ in range(draw.randrange(4))
                ]
            case 2:
                header[name]["data_offsets"] = [draw.choice((0, 8, -1, 2**40, 2**63)) for _ in range(draw.randrange(4))]
            case 3:
                header[draw.choice(("", "x", "__metadata__", "é\x1b[0m"))] = header.pop(name)
            case 4:
                header["__metadata__"] = draw.choice(
                    ({"transferscope": "{"}, {"transferscope": '{"keys": 1}'}, {"a": 1}, [], "x")
                )
            case 5:
                header["__metadata__"] = {
                    "transferscope": json.dumps(
                        draw.choice(
                            ({}, [], {"metadata": [], "keys": []}, {"metadata": {"class_names": 3}, "keys": []})
                        )
                    )
                }
            case _:
                header[name] = draw.choice((None, 1, [], {}))
        text = json.dumps(header).encode()
    except Exception:  # damaged before
        return _with_other_bytes(content, draw)
    length = len(text) if draw.random() < 0.8 else draw.choice((0, 1, 2**31, 2**40, 2**62, len(text) + 1))
    return length.to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


def read(path: Path, values: bool) -> str:
    """`read` or `refused`; every other outcome as an error."""
    try:
        checkpoint = load_checkpoint(path, values=values)
    except UserError as error:
        text = str(error)
        assert text.isprintable(), f"not one plain line: {text!r}"
        assert len(text) < 1500, f"a long line: {text!r}"
        assert "weights_only" not in text, text
        return "refused"
    for tensor in checkpoint.state_dict.values():
        assert tensor.is_meta or tensor.clone(memory_format=torch.contiguous_format).shape == tensor.shape
    return "read"


def main(folder: Path, first: int, count: int) -> None:
    """Read the files of the seeds; the file `seed` names the last one if the process dies."""
    warnings.simplefilter("ignore")
    logging.disable()
    originals = [*valid_files(), own_file(folder)]
    for number, (_, content) in enumerate(originals):
        path = folder / f"whole_{number}.pth"
        path.write_bytes(content)
        assert read(path, True) == "read"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, faults = {"read": 0, "refused": 0}, []
    for seed in range(first, first + count):
        draw = random.Random(seed)
        kind, content = draw.choice(originals)
        path = folder / f"a{draw.choice(('.pth', '.safetensors', '.ckpt', ''))}"
        (folder / "seed").write_text(str(seed))
        path.write_bytes(damaged(kind, content, draw))
        try:
            read(path, False)
            counts[read(path, True)] += 1
        except BaseException as error:  # a panic of the safetensors library is no Exception
            faults.append(f"seed {seed}: {type(error).__name__}: {error}"[:500])
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps(counts | {"faults": faults, "growth": growth}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
