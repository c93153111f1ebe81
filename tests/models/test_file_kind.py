"""Files that are no checkpoints, and checkpoints whatever they are called."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from transferscope.models.checkpoint import load_checkpoint
from transferscope.system.errors import UserError

WEIGHTS = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.zeros(2)}


def zipped(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return stream.getvalue()


def array_archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(2))
    return stream.getvalue()


def dumped(compress: int) -> bytes:
    stream = io.BytesIO()
    joblib.dump({"fc.weight": np.zeros((2, 3))}, stream, compress=compress)
    return stream.getvalue()


def array_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(2))
    return stream.getvalue()


OTHERS = {
    "HTML page": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "HTML page, as": b"\n  <html><head></head></html>",
    "XML document": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "MessagePack file": b"\x82\xa6params\x81\xa4conv" + bytes(range(200)),
    "MessagePack file, as": b"\xde\x00\x11\xa6params" + bytes(range(200)),
    "git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
    "JSON text": b'\xef\xbb\xbf {"error": "Repository not found"}',
    "a text that begins with 'Not Found": b"Not Found \x1b[31m for url\n",
    "empty": b"",
    "zeros only": bytes(5000),
    "HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "Keras archive": zipped(**{"metadata.json": "", "config.json": "", "model.weights.h5": ""}),
    "ONNX model": b"\x08\x07\x12\x07pytorch\x1a\x051.9.0" + bytes(50),
    "GGUF file": b"GGUF\x03\0\0\0" + bytes(50),
    "TensorFlow Lite model": b"\x1c\0\0\0TFL3" + bytes(50),
    "gzip archive": gzip.compress(b"x" * 100),
    "tar archive": tarred(),
    "xz archive": b"\xfd7zXZ\0" + bytes(30),
    "zstd archive": b"\x28\xb5\x2f\xfd" + bytes(30),
    "zip archive, no file of torch.save": zipped(**{"weights.pth": "x"}),
    "zip archive that is cut off": zipped(**{"weights.pth": "x"})[:-10],
    "NumPy archive": array_archive(),
    "NumPy array": array_file(),
    "PNG image": b"\x89PNG\r\n\x1a\n" + bytes(30),
    "PDF document": b"%PDF-1.7\n" + bytes(30),
    "MATLAB file": b"MATLAB 5.0 MAT-file" + bytes(200),
    "text in UTF-16": "<html>".encode("utf-16"),
    "joblib file": dumped(0),
    "compressed by zlib, as joblib does": dumped(3),
    "archive of torch.export": zipped(**{"a/archive_format": "pt2", "a/models/model.json": ""}),
}


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.ckpt", "a"])
@pytest.mark.parametrize("kind", list(OTHERS))
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path: Path, kind: str, name: str) -> None:
    """In one plain line that also says what to do, whatever the file is called."""
    (tmp_path / name).write_bytes(OTHERS[kind])
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(f"checkpoint {tmp_path / name} is ")
    assert kind.removesuffix(", as") in text
    assert text.isprintable()
    assert ": " in text


@pytest.mark.parametrize("trace", [True, False])
def test_a_torchscript_archive_is_called_so(tmp_path: Path, trace: bool) -> None:
    """It holds code, and has the outer form of a file of torch.save."""
    model = nn.Linear(2, 2)
    scripted = torch.jit.trace(model, torch.zeros(1, 2)) if trace else torch.jit.script(model)
    torch.jit.save(scripted, tmp_path / "a.pth")
    with pytest.raises(
        UserError, match=r"a\.pth is a TorchScript archive, which holds code: save the model's state_dict"
    ):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.PTH", "a.ckpt", "a.bin", "a.model", "a", "a.safetensors", "a.h5"])
@pytest.mark.parametrize("kind", ["archive", "old", "pickle", "safetensors"])
def test_the_content_decides_and_not_the_suffix(tmp_path: Path, name: str, kind: str) -> None:
    """Each format under each name gives the weights."""
    path = tmp_path / name
    if kind == "safetensors":
        path.write_bytes(save(WEIGHTS))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({key: value.numpy() for key, value in WEIGHTS.items()}))
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "archive")
    state_dict = load_checkpoint(path).state_dict
    assert all(torch.equal(state_dict[key], value) for key, value in WEIGHTS.items())
    assert state_dict.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_folder_of_hugging_face_is_read(tmp_path: Path, suffix: str) -> None:
    """One file of weights under its usual name, or parts that an index lists; the index may be given itself."""

    def write(name: str, weights: dict[str, torch.Tensor]) -> None:
        save_file(weights, tmp_path / name) if suffix == ".safetensors" else torch.save(weights, tmp_path / name)

    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    for number, (key, value) in enumerate(WEIGHTS.items(), 1):
        write(f"{stem}-{number:05d}-of-00002{suffix}", {f"module.{key}": value})
    parts = {f"module.{key}": f"{stem}-{number:05d}-of-00002{suffix}" for number, key in enumerate(WEIGHTS, 1)}
    index = tmp_path / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, index):
        assert load_checkpoint(path).state_dict.keys() == WEIGHTS.keys()
    write(f"{stem}{suffix}", {key: value + 1 for key, value in WEIGHTS.items()})
    assert torch.equal(load_checkpoint(tmp_path).state_dict["fc.bias"], torch.ones(2))


def test_one_part_of_several_is_called_so(tmp_path: Path) -> None:
    """The message names the file that lists all parts; a model in one part is read."""
    save_file(WEIGHTS, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(
        UserError, match=r"is part 1 of 2 of a model: give model\.safetensors\.index\.json, which lists"
    ):
        load_checkpoint(tmp_path / "model-00001-of-00002.safetensors")
    save_file(WEIGHTS, tmp_path / "model-00001-of-00001.safetensors")
    assert load_checkpoint(tmp_path / "model-00001-of-00001.safetensors").state_dict.keys() == WEIGHTS.keys()


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    """As after a download that stopped."""
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(UserError, match=r"lacks model-1\.safetensors, which model\.safetensors\.index\.json lists"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "x", '{"weight_map": {}}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 3}}']
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """Files outside of the folder are not read."""
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match="is no index of a model in parts"):
        load_checkpoint(tmp_path)


def test_another_folder_says_that_it_is_a_folder(tmp_path: Path) -> None:
    """And which files it has."""
    (tmp_path / "a.pth").touch()
    with pytest.raises(UserError, match=r"is a folder: give a file \(files in it: a\.pth\)"):
        load_checkpoint(tmp_path)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(UserError, match="is a folder with a TensorFlow model"):
        load_checkpoint(tmp_path)


def test_an_archive_that_a_browser_unpacked_is_called_so(tmp_path: Path) -> None:
    """Safari unpacks downloads that are zip archives, as files of torch.save are."""
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "weights.pth") as archive:
        archive.extractall(tmp_path / "unpacked")
    for folder in (tmp_path / "unpacked", tmp_path / "unpacked/weights"):
        with pytest.raises(
            UserError, match=r"a file of torch\.save that was unpacked.*zip -0 -r weights\.pth weights`"
        ):
            load_checkpoint(folder)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Opening one would hang."""
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(UserError, match="is a device, pipe or socket"):
        load_checkpoint(tmp_path / "a.pth")


def test_an_address_is_no_path() -> None:
    """Nothing is downloaded; the message says what to do."""
    with pytest.raises(UserError, match=r"is an address \(https\): download the file and give its path"):
        load_checkpoint("https://example.org/a.pth")


@pytest.mark.parametrize("name", ["a\0b.pth", "x" * 300 + ".pth"])
def test_paths_that_the_system_refuses_are_named(tmp_path: Path, name: str) -> None:
    """A zero byte; a name that is too long."""
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(tmp_path / name)


def header(**fields: object) -> bytes:
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | fields}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        header(dtype="X"),
        header(dtype=3),
        header(shape=[2]),
        header(shape=[-1]),
        header(shape=[2**40, 2**40]),
        header(data_offsets=[0, 2**40]),
        header(data_offsets=[4, 0]),
        struct.pack("<Q", 2**31) + b"{}",
        struct.pack("<Q", 5) + b"{" * 100,
        header()[:-1],
        header() + b"x",
    ],
)
def test_a_bad_header_of_safetensors_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Types, shapes and places that are impossible; nothing of a claimed size is allocated."""
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors is cut off or no safetensors file") as caught:
        load_checkpoint(tmp_path / "a.safetensors")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    ["{", "3", "[]", '{"keys": 1}', '{"keys": [], "metadata": 3}', '{"keys": [], "metadata": {"class_names": 3}}'],
)
def test_a_bad_header_of_our_own_is_one_line(tmp_path: Path, text: str) -> None:
    """It is JSON inside of JSON."""
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"transferscope": text})
    with pytest.raises(UserError, match=r"a\.safetensors has a damaged header"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", 3),
        ("architecture", ["resnet18"]),
        ("model_options", None),
        ("model_options", "width"),
        ("num_classes", "2"),
        ("class_names", [1]),
        ("epoch", 2.5),
        ("metrics", {"test_accuracy": "high"}),
        ("extra", []),
    ],
)
def test_values_of_other_types_in_a_header_are_one_line(tmp_path: Path, key: str, value: object) -> None:
    """The line names the key; the same file without the value is read."""
    path = tmp_path / "a.safetensors"
    for metadata in ({}, {key: value}):
        text = json.dumps({"keys": ["a"], "metadata": {"class_names": []} | metadata})
        save_file({"a": torch.zeros(1)}, path, {"transferscope": text})
        if not metadata:
            load_checkpoint(path)
    with pytest.raises(UserError, match=rf"a\.safetensors has a damaged header \({key}"):
        load_checkpoint(path)


@pytest.mark.parametrize("option", ["name", "seed", "num_classes"])
def test_what_is_no_option_of_a_network_is_none_in_a_header(tmp_path: Path, option: str) -> None:
    """These are arguments of their own where a network is built."""
    text = json.dumps({"keys": ["a"], "metadata": {"class_names": [], "model_options": {option: 1}}})
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"transferscope": text})
    with pytest.raises(UserError, match=rf"damaged header \({option} is no option of a network\)"):
        load_checkpoint(tmp_path / "a.safetensors")
