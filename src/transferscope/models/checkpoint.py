"""Weights with what made them: one safetensors file, its metadata in the header."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from transferscope.experiment.options.architecture import NOT_TAKEN
from transferscope.models.checkpoint_files import files_of
from transferscope.models.compatible import check_compatible, classifier_keys, infer_num_classes, load_weights
from transferscope.models.file_kind import kind_of
from transferscope.models.fit_to_model import fit_to_model
from transferscope.models.hub_cache import local_path
from transferscope.models.plain_layers import make_plain
from transferscope.models.saved_weights import BY_OPTION, read_torch_file
from transferscope.models.state_dicts import check_values, is_statistic
from transferscope.models.tensor_names import rename
from transferscope.models.torch_file import first_line
from transferscope.models.zoo import build_model, build_skeleton
from transferscope.system.errors import UserError
from transferscope.system.references import allow, is_allowed, is_reference
from transferscope.system.stored import UNSEALED, DamagedError, check, seal_of, write_sealed

log = logging.getLogger(__name__)
# One key: the order of several would differ from process to process, and with it the bytes of the file.
HEADER_KEY = "transferscope"
PLAIN_LAYERS = "plain_layers"
"""In `CheckpointMetadata.extra`: the weights are those that `models.plain_layers.make_plain` leaves in the network."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """The origin of the weights; None or empty where a file made elsewhere does not name it."""

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
        """Its name in errors: its file, or task, run and epoch."""
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
        checkpoint, model = self._fitted()
        load_weights(model, checkpoint.state_dict)
        return model.eval()

    def fitted(self) -> Checkpoint:
        """The same weights under the names that the architecture has.

        A prefix of all its names, averages beside it, and auxiliary classifiers that it lacks are left out, counters
        that old torch did not have are filled in, and names of older versions are brought up to date, each with a
        sentence in the log and in `metadata.extra["notes"]`. Weights that fit as they are stay as they are.

        Raises UserError if the metadata names no architecture, or if the weights do not fit it.
        """
        return self._fitted(values=False)[0]

    def with_notes(self, notes: Sequence[str]) -> Checkpoint:
        """The same weights, with sentences added to `metadata.extra["notes"]`."""
        extra = self.metadata.extra
        return self.with_metadata(extra=extra | {"notes": [*extra.get("notes", []), *notes]}) if notes else self

    def _fitted(self, values: bool = True) -> tuple[Checkpoint, nn.Module]:
        """The weights under the model's names, and the model; without `values` it may be one on the device meta."""
        name, options = self.metadata.architecture, self.metadata.model_options
        if name is None:
            raise UserError(f"{self.source} does not say its architecture: name it where the file is named")
        check_named(name, self.source)
        num_classes = self.metadata.num_classes
        if num_classes is None:
            num_classes = infer_num_classes(self.state_dict, name, options, source=self.source)
        plain_layers = bool(self.metadata.extra.get(PLAIN_LAYERS))
        if values or plain_layers or is_reference(name):
            # A seed only so that torch's global generator stays as it is; every weight is replaced.
            model = build_model(name, num_classes, seed=0, **options)
        else:
            model = build_skeleton(name, num_classes, **options)
        if plain_layers:
            make_plain(model)
        state_dict, notes = fit_to_model(self.state_dict, model)
        check_compatible(state_dict, model, source=self.source, expected=f"{name} with {num_classes} classes")
        for note in notes:
            log.info("%s: %s", self.source, note)
        return (replace(self, state_dict=state_dict).with_notes(notes) if notes else self), model


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a `.safetensors` file, atomically, with a digest of all its bytes in the header.

    Equal contents give equal bytes, on any device and memory layout.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"cannot save the checkpoint {path}: its name must end in .safetensors")
    metadata = asdict(checkpoint.metadata)
    try:
        _typed(metadata)
    except ValueError as error:
        raise UserError(f"cannot save the checkpoint {path}: its metadata has {error}") from None
    header = {"digest": UNSEALED, "metadata": metadata, "keys": list(checkpoint.state_dict)}
    tensors = {key: plain(tensor) for key, tensor in checkpoint.state_dict.items()}
    write_sealed(path, save(tensors, {HEADER_KEY: json.dumps(header, sort_keys=True)}))


def load_checkpoint(
    path: str | Path, *, weights: str | None = None, prefix: str | None = None, values: bool = True
) -> Checkpoint:
    """Read a checkpoint without running code from it; the kind of a file follows from its content, not from its name.

    Read are safetensors, files of `torch.save` of any version, pickles of NumPy arrays, and folders in Hugging Face's
    layout, also by a name of the hub, `hf_hub:timm/resnet18.a1_in1k`, where its files lie in the local cache. In what a
    training script saved, the state_dict is found under `state_dict`, `model` and the like; `weights`
    names the key where there are several, e.g. `model_ema`. Of the names only those below `prefix` are taken; without
    it, parts that wrappers put before every name are removed (`module.`, `_orig_mod.`, `model.`, `backbone.`, ...).
    Each choice is a sentence in the log and in `metadata.extra["notes"]`.

    Tensors keep the dtype they have in the file, float16 and bfloat16 too. Without `values` they are on the device
    `meta` and have names, shapes and dtypes only, which is cheap.

    Raises UserError, naming the file, where it is missing, damaged, of another kind (which it names), or holds no
    state_dict, and where a tensor is sparse, quantised or without values, or holds values that no network computes with
    (`check_values`; without `values` in BatchNorm's statistics alone); DamagedError, a UserError, where a file that
    bears a digest has another content.
    """
    path = local_path(path)
    files = files_of(path)
    parts = [_load_file(file, weights, values) for file in files]
    if len(parts) == 1 and HEADER_KEY in parts[0].made_by:
        if weights is not None or prefix is not None:
            raise UserError(f"checkpoint {path} holds one set of weights: leave out the options weights and prefix")
        return Checkpoint(parts[0].state_dict, parts[0].metadata, path)
    state_dict: dict[str, Tensor] = {}
    for file, part in zip(files, parts, strict=True):
        twice = state_dict.keys() & part.state_dict.keys()
        if twice:
            raise UserError(f"checkpoint {file} holds {min(twice)!r}, which another file of {path} holds too")
        state_dict |= part.state_dict
    names, renaming = rename(list(state_dict), prefix, where=f"checkpoint {path}")
    notes = [*dict.fromkeys(note for part in parts for note in part.notes), *renaming]
    for note in notes:
        log.info("checkpoint %s: %s", path, note)
    checkpoint = Checkpoint({name: state_dict[old] for old, name in names.items()}, parts[0].metadata, path)
    return checkpoint.with_notes(notes)


def check_checkpoint_file(
    path: str | Path,
    *,
    architecture: str | None = None,
    model_options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    any_classifier: bool = False,
    weights: str | None = None,
    prefix: str | None = None,
) -> CheckpointMetadata:
    """The metadata of a file that can be read and fits `architecture`, from names, shapes and dtypes alone.

    It has the number of classes where the whole network has to fit.

    No weights are read, so that a gigabyte takes as long as the construction of the network. An architecture that the
    file names itself goes first. With `any_classifier` the classifier need not fit, as for pre-trained weights.

    Raises UserError as `load_checkpoint` and `Checkpoint.build` do.
    """
    checkpoint = load_checkpoint(path, weights=weights, prefix=prefix, values=False)
    known = checkpoint.metadata
    name = known.architecture or architecture
    if name is None:
        return known
    if name == architecture and is_reference(name):
        allow(name)
    check_named(name, checkpoint.source)
    options = known.model_options or dict(model_options or {})
    classes = known.num_classes or num_classes
    if not any_classifier:
        described = checkpoint.with_metadata(architecture=name, model_options=options, num_classes=classes)
        fitted = described.fitted()
        classes = classes or infer_num_classes(fitted.state_dict, name, options, source=fitted.source)
        return fitted.with_metadata(num_classes=classes).metadata
    model = build_model(name, classes or 2, seed=0, **options)
    new = classifier_keys(model)
    state_dict, _ = fit_to_model(checkpoint.state_dict, model, ignore=new)
    check_compatible(state_dict, model, source=checkpoint.source, expected=name, ignore=new)
    return known


def check_named(architecture: str, source: str) -> None:
    """Refuse a checkpoint whose own header names code that the user has not named: importing it would run it."""
    if is_reference(architecture) and not is_allowed(architecture):
        raise UserError(
            f"{source} says that its network is made by the code {architecture}: if you trust that code, name it as "
            "model.name of the study, or as the architecture where the file is named"
        )


@dataclass(frozen=True)
class _Part:
    """The content of one file, under the names that it gives."""

    state_dict: dict[str, Tensor]
    metadata: CheckpointMetadata
    notes: list[str] = field(default_factory=list)
    made_by: tuple[str, ...] = ()


def _load_file(path: Path, weights: str | None, values: bool) -> _Part:
    kind = kind_of(path)
    if kind == "safetensors" or (kind is None and path.suffix == ".safetensors"):
        if weights is not None:
            raise UserError(f"checkpoint {path} is a safetensors file, which has no keys: leave out {BY_OPTION}")
        return _load_safetensors(path, values)
    state_dict, about, notes = read_torch_file(path, kind, weights=weights, values=values)
    return _Part(state_dict, CheckpointMetadata(**about), notes)


def _load_safetensors(path: Path, values: bool = True) -> _Part:
    with _opened(path) as file:
        if seal_of(path):  # files made elsewhere bear none
            _check(path)
        header = file.metadata()
        metadata, order = _metadata(path, header)
        keys = file.keys()
        order = order if set(order) == set(keys) else list(keys)
        # Copies: what get_tensor gives lies in the mapped file, at addresses that are not aligned.
        state_dict = {key: _read_tensor(path, file, key, values) for key in order}
        if HEADER_KEY not in (header or ()):
            read = {key: _read_tensor(path, file, key, True) for key in order if is_statistic(key)}
            check_values(state_dict | read, where=f"checkpoint {path}")
        return _Part(state_dict, metadata, made_by=tuple(header or ()))


def _read_tensor(path: Path, file: Any, key: str, values: bool) -> Tensor:
    try:
        tensor = file.get_tensor(key)
        return tensor.clone() if values else tensor.to("meta")
    except Exception as error:  # of dtypes that torch lacks, the library raises errors of several types
        raise UserError(f"checkpoint {path}: tensor {key!r} cannot be read ({first_line(error)})") from error


def _check(path: Path) -> None:
    try:
        check(path, is_sealed=True)
    except DamagedError as error:
        raise DamagedError(path, error.reason, "copy it again, or train its run again") from None


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {path} does not exist: check the path") from error
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"checkpoint {path} is cut off or no safetensors file ({first_line(error)}): copy it again"
        ) from error


def _metadata(path: Path, header: Mapping[str, str] | None) -> tuple[CheckpointMetadata, list[str]]:
    """Metadata and the order of the keys; files made elsewhere have neither."""
    text = (header or {}).get(HEADER_KEY)
    if text is None:
        return CheckpointMetadata(), []
    try:
        content = json.loads(text)
        values, keys = dict(content["metadata"]), [str(key) for key in content["keys"]]
        values["class_names"] = tuple(values["class_names"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"checkpoint {path} has a damaged header ({first_line(error)}): copy it again") from error
    unknown = values.keys() - {known.name for known in fields(CheckpointMetadata)}
    if unknown:
        raise UserError(f"checkpoint {path} holds unknown metadata {sorted(unknown)}: it needs a newer transferscope")
    try:
        return _typed(values), keys
    except ValueError as error:
        raise UserError(f"checkpoint {path} has a damaged header ({error}): copy it again") from None


def _typed(values: dict[str, Any]) -> CheckpointMetadata:
    """Metadata of the declared types; ValueError with the key otherwise."""
    try:
        metadata = _metadata_type().validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ValueError(": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"]]))) from None
    for option in NOT_TAKEN.keys() & metadata.model_options.keys():
        raise ValueError(f"{option} is no option of a network")
    return metadata


@cache
def _metadata_type() -> TypeAdapter[CheckpointMetadata]:
    return TypeAdapter(CheckpointMetadata)


def plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares memory with no other tensor."""
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
