"""Weights with what made them: one safetensors file, its metadata in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transferscope.models.compatible import check_compatible, infer_num_classes
from transferscope.models.torch_file import read_torch_file
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError
from transferscope.system.stored import UNSEALED, DamagedError, check, seal_of, write_sealed

TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt")
# One key: the order of several would differ from process to process, and with it the bytes of the file.
HEADER_KEY = "transferscope"


@dataclass(frozen=True)
class CheckpointMetadata:
    """What made the weights; None or empty where a file made elsewhere does not say."""

    architecture: str | None = None
    """Name for `build_model`."""
    model_options: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    class_names: tuple[str, ...] = ()
    task: str | None = None
    run: str | None = None
    epoch: int | None = None
    """Passes over the training data that were made; 0 is the untrained model."""
    epoch_name: str | None = None
    """`best` or `final`, where the file says so."""
    seeds: dict[str, int] = field(default_factory=dict)
    fingerprint: str | None = None
    """Digest of the part of the plan that made it."""
    metrics: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A state_dict on the CPU and its metadata; `path` is the file it came from."""

    state_dict: dict[str, Tensor]
    metadata: CheckpointMetadata = CheckpointMetadata()
    path: Path | None = None

    @property
    def source(self) -> str:
        """What errors call it: its file, or task, run and epoch."""
        if self.path is not None:
            return str(self.path)
        made_by = [str(part) for part in (self.metadata.task, self.metadata.run) if part]
        return "checkpoint " + ".".join(made_by) if made_by else "checkpoint"

    def with_metadata(self, **changes: Any) -> Checkpoint:
        """The same weights with some fields of the metadata replaced."""
        return replace(self, metadata=replace(self.metadata, **changes))

    def build(self) -> nn.Module:
        """The model with these weights, in evaluation mode, on the CPU.

        Raises UserError if the metadata names no architecture, or if the weights do not fit it.
        """
        name = self.metadata.architecture
        if name is None:
            raise UserError(f"{self.source} does not say its architecture: name it where the file is named")
        num_classes = self.metadata.num_classes
        if num_classes is None:
            num_classes = infer_num_classes(self.state_dict, name, self.metadata.model_options, source=self.source)
        # A seed only so that torch's global generator stays as it is; every weight is replaced.
        model = build_model(name, num_classes, seed=0, **self.metadata.model_options)
        check_compatible(self.state_dict, model, source=self.source, expected=f"{name} with {num_classes} classes")
        model.load_state_dict(self.state_dict)
        return model.eval()


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a `.safetensors` file, atomically, with a digest of all its bytes in the header.

    Equal contents give equal bytes, on any device and memory layout.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"cannot save the checkpoint {path}: its name must end in .safetensors")
    header = {"digest": UNSEALED, "metadata": asdict(checkpoint.metadata), "keys": list(checkpoint.state_dict)}
    tensors = {key: plain(tensor) for key, tensor in checkpoint.state_dict.items()}
    write_sealed(path, save(tensors, {HEADER_KEY: json.dumps(header, sort_keys=True)}))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a `.safetensors` file, or a `.pth`, `.pth.tar` or `.pt` file without running code from it.

    From torch's files the state_dict is found under `state_dict`, `model` and the like; the prefixes that
    DataParallel, `torch.compile` and Lightning put before every key are dropped.

    Raises UserError, naming the file, where it is missing, cut off, of another kind, or holds no state_dict, and
    DamagedError where a file that bears a digest has another content.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist: check the path")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.name.endswith(TORCH_SUFFIXES):
        state_dict, about = read_torch_file(path)
        return Checkpoint(state_dict, CheckpointMetadata(**about), path)
    raise UserError(f"checkpoint {path} is of an unknown kind: expected .safetensors, {', '.join(TORCH_SUFFIXES)}")


def read_metadata(path: str | Path) -> CheckpointMetadata:
    """The metadata of a `.safetensors` file without its tensors."""
    with _opened(Path(path)) as file:
        return _metadata(Path(path), file.metadata())[0]


def _load_safetensors(path: Path) -> Checkpoint:
    with _opened(path) as file:
        if seal_of(path):  # files made elsewhere bear none
            _check(path)
        metadata, order = _metadata(path, file.metadata())
        keys = file.keys()
        order = order if set(order) == set(keys) else list(keys)
        # Copies: what get_tensor gives lies in the mapped file, at addresses that are not aligned.
        return Checkpoint({key: file.get_tensor(key).clone() for key in order}, metadata, path)


def _check(path: Path) -> None:
    try:
        check(path)
    except DamagedError as error:
        raise DamagedError(path, error.reason, "copy it again, or train its run again") from None


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path} does not exist: check the path") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is cut off or no safetensors file ({error}): copy it again") from error


def _metadata(path: Path, header: Mapping[str, str] | None) -> tuple[CheckpointMetadata, list[str]]:
    """Metadata and the order of the keys; files made elsewhere have neither."""
    text = (header or {}).get(HEADER_KEY)
    if text is None:
        return CheckpointMetadata(), []
    content = json.loads(text)
    values = content["metadata"]
    unknown = values.keys() - {known.name for known in fields(CheckpointMetadata)}
    if unknown:
        raise UserError(f"checkpoint {path} holds unknown metadata {sorted(unknown)}: it needs a newer transferscope")
    values["class_names"] = tuple(values["class_names"])
    return CheckpointMetadata(**values), content["keys"]


def plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with no other tensor."""
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
