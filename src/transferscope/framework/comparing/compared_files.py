"""Checkpoint files that are compared: read, checked, and recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferscope.answers.wording import network
from transferscope.experiment.study import MAX_LABEL
from transferscope.models.hub_cache import is_hub_name
from transferscope.system.errors import UserError, one_line
from transferscope.system.references import allow, is_reference

if TYPE_CHECKING:
    from transferscope.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class ComparedFile:
    """A file with the network that its weights belong to."""

    path: str
    """Absolute, or a name of the hub."""
    label: str
    """Its name in tables and figures."""
    model: str
    options: dict[str, Any]
    num_classes: int
    image_side: int | None
    """Side in pixels of the only images that the network takes; None where it takes others, too."""
    channels: int
    """Of the images that the network takes, 1 or 3."""
    recognition: str
    """A sentence that says what it was recognised as, and why."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """The options weights and prefix of the file, as far as they are given."""

    def __str__(self) -> str:
        side = f" of {self.image_side} px" if self.image_side else ""
        colour = "grey" if self.channels == 1 else "colour"
        return (
            f"{self.label}: {self.shown_model}, {self.num_classes} classes, {colour} images{side} ({self.recognition})"
        )

    @property
    def shown_model(self) -> str:
        """The architecture as it is printed: of a function in a file without the folder."""
        return network(self.model)

    @property
    def network(self) -> tuple[str, dict[str, Any]]:
        """The architecture with its options; equal where weights may be compared one by one."""
        return self.model, self.options

    def load(self) -> Checkpoint:
        """The weights under the names of the architecture."""
        from transferscope.models.checkpoint import load_checkpoint

        loaded = load_checkpoint(self.path, weights=self.chosen.get("weights"), prefix=self.chosen.get("prefix"))
        return loaded.with_metadata(
            architecture=self.model, model_options=self.options, num_classes=self.num_classes
        ).fitted()


def absolute(path: str) -> str:
    """A path of the command line from the folder in which the command is given; names of the hub stay."""
    try:
        return path if is_hub_name(path) else str(Path.cwd() / Path(path).expanduser())
    except RuntimeError:
        raise UserError(f"{path}: no user of this name has a home folder: write the path in full") from None


def absolute_model(name: str) -> str:
    """A name of an architecture; the file of a function of the user's own begins where the command is given."""
    if not is_reference(name):
        return name
    place, _, function = name.rpartition(":")
    reference = f"{absolute(place)}:{function}" if place.endswith(".py") else name
    allow(reference)
    return reference


OF_ANOTHER_NETWORK = "if it is another network, give --model once for each file; a parent is of the files' network"
A_COPY = "name another file; a copy under another name is compared with it"


def check_different(paths: Sequence[str], hint: str = A_COPY) -> None:
    """Raise a UserError, with a hint what to do, where one path is given twice, under one name or by a link."""
    resolved = [path if is_hub_name(path) else str(Path(path).resolve()) for path in paths]
    for path, count in Counter(resolved).items():
        if count > 1:
            raise UserError(f"{path} is given {'twice' if count == 2 else f'{count} times'}: {hint}")


def labels_of(paths: Sequence[str]) -> list[str]:
    """Short names of files, all different: the file without suffix, and as many folders as it takes.

    Of a name that is too long for a label the end is left, after its number.
    """
    parts = [Path(path).with_suffix("").parts if not is_hub_name(path) else tuple(path.split("/")) for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return [_shortened(one_line(label), number) for number, label in enumerate(labels, 1)]
    return [Path(path).name if not is_hub_name(path) else path for path in paths]


def _shortened(label: str, number: int) -> str:
    return label if len(label) <= MAX_LABEL else f"file {number}: ...{label[-MAX_LABEL // 2 :]}"


def read_file(
    path: str, label: str, model: str | None, options: Mapping[str, Any], kind: str, chosen: Mapping[str, str]
) -> ComparedFile:
    """Read a file, refuse values that no network computes with, and recognise its network.

    model: its architecture where the user has named it. options: those of `model`. kind: the kind of run that it is.
    chosen: the options weights and prefix, as far as they are given.

    Raises UserError, naming the file.
    """
    from transferscope.models.checkpoint import load_checkpoint
    from transferscope.models.saved_weights import BY_OPTION
    from transferscope.models.state_dicts import check_values

    by_option = f"--params runs.{kind}.weights=..."
    try:
        checkpoint = load_checkpoint(path, weights=chosen.get("weights"), prefix=chosen.get("prefix"))
    except UserError as error:
        raise UserError(str(error).replace(BY_OPTION, by_option)) from None
    check_values(checkpoint.state_dict, where=f"checkpoint {path}")
    file = _recognised(checkpoint, path, label, model, options)
    notes = [note.replace(BY_OPTION, by_option) for note in checkpoint.metadata.extra.get("notes", ())]
    of_others = "".join(f"; {note}" for note in notes if by_option in note and not chosen)
    return replace(file, recognition=file.recognition + of_others, chosen=chosen)


def _recognised(
    checkpoint: Checkpoint, path: str, label: str, model: str | None, options: Mapping[str, Any]
) -> ComparedFile:
    from transferscope.models.compatible import infer_num_classes
    from transferscope.models.image_input import fixed_side
    from transferscope.models.layers import image_channels
    from transferscope.models.recognition import hints_of, recognize
    from transferscope.models.zoo import tried_network

    own = checkpoint.metadata
    if own.architecture is not None and model not in (None, own.architecture):
        raise UserError(f"checkpoint {path} says that it is a {own.architecture}, not a {model}: leave --model out")
    name = own.architecture or model
    if name is None:
        try:
            recognized = recognize([checkpoint.state_dict], hints=hints_of(checkpoint, path))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        others = f"; next: {', '.join(recognized.runners_up)}" if recognized.runners_up else ""
        why = f"{recognized.evidence}{others}"
        size = recognized.image_side, recognized.in_channels
        return ComparedFile(path, label, recognized.name, recognized.options, recognized.num_classes, *size, why)
    chosen = own.model_options or dict(options)
    classes = own.num_classes or infer_num_classes(
        checkpoint.state_dict, name, chosen, source=path, remedy=OF_ANOTHER_NETWORK
    )
    checkpoint.with_metadata(architecture=name, model_options=chosen, num_classes=classes).fitted()
    why = "as its header says" if own.architecture else "as --model says"
    network = tried_network(name, chosen)
    return ComparedFile(path, label, name, chosen, classes, fixed_side(network), image_channels(network), why)


def check_ancestor(parent: ComparedFile, files: Sequence[ComparedFile]) -> None:
    """Raise a UserError where the parent is of another network than a file, or its weights are unrelated to the file's.

    Two models are in memory at a time.
    """
    from transferscope.analysis.merging.candidates import check_parent
    from transferscope.models.compatible import classifier_keys
    from transferscope.models.zoo import build_skeleton

    free = classifier_keys(build_skeleton(parent.model, parent.num_classes, **parent.options))
    weights = parent.load().state_dict
    for file in files:
        if file.network != parent.network:
            raise UserError(
                f"--parent {parent.path} is a {parent.shown_model}, and {file.label} a {file.shown_model}: give the "
                "weights that the files were fine-tuned from, or no parent"
            )
        try:
            check_parent(weights, [file.load().state_dict], free, parent.path, file.label)
        except UserError as error:
            raise UserError(f"--parent: {str(error).replace('candidate 1', file.label)}") from None
