"""Checkpoints on disk."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transferscope.models.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    load_checkpoint,
    save_checkpoint,
)
from transferscope.models.zoo import build_model
from transferscope.system import atomic
from transferscope.system.errors import UserError

METADATA = CheckpointMetadata(
    architecture="fixup_resnet_small",
    model_options={"widths": [4, 8, 16]},
    num_classes=3,
    class_names=("a", "b, with comma", "ç"),
    task="clipart",
    run="pt_1",
    epoch=7,
    seeds={"init": 1, "order": 2**40},
    fingerprint="abc",
    metrics={"test_accuracy": 0.1 + 0.2, "train_loss": 1e-300},
    extra={"note": [1, None, "x"]},
)


@pytest.fixture
def checkpoint() -> Checkpoint:
    """Of a narrow network."""
    return Checkpoint(build_model("fixup_resnet_small", 3, seed=0, widths=[4, 8, 16]).state_dict(), METADATA)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_saving_and_loading_changes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Values, types, order of the keys, metadata."""
    state = checkpoint.state_dict | {
        "steps": torch.tensor(5),
        "half": torch.rand(2, 3).bfloat16(),
        "none": torch.rand(0, 2),
    }
    save_checkpoint(Checkpoint(state, METADATA), tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.metadata == METADATA
    assert list(loaded.state_dict) == list(state)
    for key, value in state.items():
        assert loaded.state_dict[key].dtype == value.dtype
        assert torch.equal(loaded.state_dict[key], value)


def test_equal_content_gives_equal_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """In another memory layout, as views of one buffer, and after loading."""
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    state = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in checkpoint.state_dict.items()}
    buffer = torch.cat([value.flatten() for value in state.values()])
    pieces = buffer.split([value.numel() for value in state.values()])
    views = {key: piece.view(state[key].shape) for key, piece in zip(state, pieces, strict=True)}
    for name, weights in (("b", state), ("c", views)):
        save_checkpoint(Checkpoint(weights, METADATA), tmp_path / f"{name}.safetensors")
    save_checkpoint(load_checkpoint(tmp_path / "a.safetensors"), tmp_path / "d.safetensors")
    assert len({digest(tmp_path / f"{name}.safetensors") for name in "abcd"}) == 1


def test_build_gives_the_model_that_was_saved(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """In evaluation mode; torch's generator is left alone."""
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    model = load_checkpoint(tmp_path / "a.safetensors").build()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(torch.equal(value, checkpoint.state_dict[key]) for key, value in model.state_dict().items())


def test_tied_weights_are_saved_apart(tmp_path: Path) -> None:
    """safetensors refuses tensors that share memory; copies of them are saved."""
    weight = torch.rand(2, 2)
    save_checkpoint(Checkpoint({"a": weight, "b": weight}), tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors").state_dict
    assert torch.equal(loaded["a"], weight)
    assert torch.equal(loaded["b"], weight)


def test_number_of_classes_is_read_off_the_weights_where_nothing_says_it(checkpoint: Checkpoint) -> None:
    """By the length of the classifier."""
    model = checkpoint.with_metadata(num_classes=None).build()
    assert model.fc.out_features == 3


def test_files_made_elsewhere_have_empty_metadata(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Any safetensors file is a checkpoint; to build from it the architecture must be named."""
    save_file(checkpoint.state_dict, tmp_path / "a.safetensors", {"format": "pt"})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.metadata == CheckpointMetadata()
    with pytest.raises(UserError, match=r"a\.safetensors does not say its architecture"):
        loaded.build()


@pytest.mark.parametrize("remaining", [0, 4, 200, -1])
def test_a_cut_off_file_is_named(checkpoint: Checkpoint, tmp_path: Path, remaining: int) -> None:
    """Wherever it ends: before the header, in it, or one byte early."""
    path = tmp_path / "epoch_0007.safetensors"
    save_checkpoint(checkpoint, path)
    path.write_bytes(path.read_bytes()[:remaining])
    with pytest.raises(UserError, match=r"epoch_0007\.safetensors is (cut off or no safetensors file|empty)"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth", "absent"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """Whatever its suffix would be."""
    with pytest.raises(UserError, match=f"{name} does not exist"):
        load_checkpoint(tmp_path / name)


def test_unknown_kinds_of_file_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """When reading by what they hold, when writing by their name."""
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    with pytest.raises(UserError, match=r"weights\.h5 is an HDF5 file"):
        load_checkpoint(tmp_path / "weights.h5")
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        save_checkpoint(checkpoint, tmp_path / "weights.pth")


def test_metadata_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Rather than dropped."""
    header = '{"keys": ["a"], "metadata": {"class_names": [], "colour": "red"}}'
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"transferscope": header})
    with pytest.raises(UserError, match=r"unknown metadata \['colour'\]"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bn.running_var", -1e-6, "1 of 4 values of 'bn.running_var' are negative, which no variance is"),
        ("bn.running_var", float("nan"), "1 of 4 values of 'bn.running_var' are infinite or not a number"),
        ("bn.running_mean", float("inf"), "1 of 4 values of 'bn.running_mean' are infinite or not a number"),
        ("fc.weight", float("nan"), "1 of 12 values of 'fc.weight' are infinite or not a number"),
        ("fc.bias", float("-inf"), "1 of 3 values of 'fc.bias' are infinite or not a number"),
    ],
)
def test_values_that_no_network_computes_with_are_named(
    suffix: str, key: str, value: float, message: str, tmp_path: Path
) -> None:
    """Also in half precision; statistics already where no weights are read. A mask may hold infinities."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"bn": nn.BatchNorm1d(4), "fc": nn.Linear(4, 3)})
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    state["fc.mask"] = torch.full((2,), float("-inf"))
    path = tmp_path / f"file{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(state, path)
    assert load_checkpoint(path).state_dict.keys() == state.keys()
    state[key].flatten()[1] = value
    write(state, path)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"checkpoint {path}: {message}: the training has diverged or the file is")
    if "running" in key:
        with pytest.raises(UserError, match=key):
            load_checkpoint(path, values=False)
    else:
        assert load_checkpoint(path, values=False).state_dict[key].is_meta


def test_a_full_disk_leaves_the_old_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what was being written; nothing half is left beside it."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(checkpoint, path)
    before = digest(path)

    def fill(path: Path) -> None:
        os.truncate(path, 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "_flush", fill)
    with pytest.raises(UserError, match=r"no space left on device while writing .*a\.safetensors"):
        save_checkpoint(checkpoint.with_metadata(epoch=8), path)
    assert digest(path) == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("key", "value"), [("epoch", 3.0), ("metrics", {"loss": None}), ("class_names", (1, 2))])
def test_what_could_not_be_read_is_not_saved(checkpoint: Checkpoint, tmp_path: Path, key: str, value: object) -> None:
    """Values of other types are refused with their key, before there is a file."""
    with pytest.raises(UserError, match=rf"a\.safetensors: its metadata has {key}"):
        save_checkpoint(checkpoint.with_metadata(**{key: value}), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_own_file_may_have_another_name(tmp_path: Path) -> None:
    """A file that bears its digest is read, and verified, also under a suffix of torch's files."""
    save_checkpoint(Checkpoint({"a": torch.ones(3)}), tmp_path / "a.safetensors")
    renamed = tmp_path / "a.pth"
    renamed.write_bytes((tmp_path / "a.safetensors").read_bytes())
    assert torch.equal(load_checkpoint(renamed).state_dict["a"], torch.ones(3))
    content = bytearray(renamed.read_bytes())
    content[-1] ^= 1
    renamed.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(renamed)
