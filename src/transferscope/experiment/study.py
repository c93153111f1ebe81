"""The study as a user writes it in `parameters*.yml`.

Pure and typed; `transferscope.experiment.expansion` expands it into runs and pairs.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from transferscope.experiment import options as opt
from transferscope.experiment.data_formats import BUILT_IN, DataFormat, format_class, format_of_key
from transferscope.experiment.names import VIEW_SIGN
from transferscope.system.errors import UserError

VIEW = re.compile(rf"^[^_]\w*?{VIEW_SIGN}((blocks|each)_(\d+|values)|controls|source_epochs)$")
"""The name of a view; no task that a user names has the sign in it."""

RESERVED = ("all", "claims", "cross_domain", "generated", "parameters", "plan", "report", "study", "summary")
"""Names of results that belong to no task, or to the mean over all."""

MAX_LABEL = 200
MAX_REPLICAS = 10_000
MAX_NAMES = 1_000
"""Tasks, and kinds of run."""
MAX_SPLITS = 1_000
"""Epochs at which copies of one run go their own way."""


def _name(text: str) -> str:
    if (VIEW_SIGN in text and not VIEW.search(text)) or text in RESERVED:
        why = f"the name {text} is taken" if text in RESERVED else "no two underscores in a row"
        raise ValueError(f"{why}: choose another name")
    return text


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100), AfterValidator(_name)]


def _label(text: str) -> str:
    """One line of any text; white space at the ends and line breaks do not count."""
    folded = " ".join(text.split())
    if not folded:
        raise ValueError("a label is at least one visible letter")
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in folded):
        raise ValueError("a label holds no control characters")
    return folded


Label = Annotated[str, AfterValidator(_label), Field(max_length=MAX_LABEL)]


class TaskOptions(opt.Options):
    """A data set with a label space: images in a known format, or the union of other tasks.

    The keys of the format (`DataFormat`) stand beside these.
    """

    format: str | None = None
    """domainnet, chexpert, image_folder, or a class of one's own as module:Class."""
    root: opt.PathText | None = None
    """The folder with the images, or an archive. image_folder: null where there are none, and checkpoint files are
    compared by their weights alone."""
    layout: SerializeAsAny[DataFormat] | None = None
    """Not written by users: the format with those keys of the task that it adds."""
    select_best_on: Literal["test", "validation"] = "test"
    """The part on which the epoch `best` is chosen. The authors chose on test, which flatters `best`."""
    on_bad_image: Literal["stop", "drop"] = "stop"
    value_range: tuple[float, float] | None = None
    """Values of black and white in grey images of more than 8 bits, e.g. [0, 4095] of 12 bits; others are clipped."""
    num_workers: opt.Processes | None = None
    """Threads that pack the images; None: one for each core."""
    union: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Tasks of one label space to be joined, without storing an image twice; one task: a view of it."""
    pictures: opt.PictureOptions | None = None
    """Overrides the study's pictures, whole. A union may differ from its parts in what happens after storing."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the study's training for runs on this task."""

    @model_validator(mode="before")
    @classmethod
    def _format_takes_its_keys(cls, values: Any) -> Any:
        """Move the keys that the format adds into `layout`."""
        if not isinstance(values, dict) or isinstance(values.get("layout"), DataFormat):
            return values
        own = {key: value for key, value in values.items() if key not in cls.keys(common=True)}
        rest = {key: value for key, value in values.items() if key not in own}
        layout = _layout(values.get("format"), own)
        return rest if layout is None else rest | {"layout": layout}

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The keys as a user writes them, those of the format beside the others."""
        values: dict[str, Any] = handler(self)
        return values | (values.pop("layout", None) or {})

    @classmethod
    def keys(cls, *, common: bool = False) -> list[str]:
        """Keys of a task: those of any format, or with those that single built-in formats add."""
        added = [] if common else [key for name in BUILT_IN for key in format_class(name).model_fields]
        return [*(key for key in cls.model_fields if key != "layout"), *added]

    @model_validator(mode="after")
    def _either_folder_or_union(self) -> TaskOptions:
        if (self.union is None) == (self.format is None):
            raise ValueError("give either format and root, or union")
        if self.format is not None and self.root is None and not self._is_null_by_choice():
            raise ValueError("root is missing: the folder that holds the images")
        return self

    @model_validator(mode="after")
    def _white_is_above_black(self) -> TaskOptions:
        if self.value_range is not None:
            if self.union is not None:
                raise ValueError("value_range belongs to the single tasks of a union: its images are not stored again")
            if not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
                raise ValueError("value_range: give the value of black and then the larger one of white")
        return self

    @model_validator(mode="after")
    def _validation_part_is_there_and_used(self) -> TaskOptions:
        wanted = self.select_best_on == "validation"
        fault = self.layout.validation_fault(wanted=wanted) if self.layout else None
        if fault:
            raise ValueError(f"select_best_on: {fault}")
        return self

    def _is_null_by_choice(self) -> bool:
        return "root" in self.model_fields_set and self.format == "image_folder"

    @property
    def has_images(self) -> bool:
        """True if there are images, of the task itself or of those that it joins."""
        return self.union is not None or self.root is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits of the task."""
        return ("train", "test", "validation") if self.select_best_on == "validation" else ("train", "test")

    def source_options(self) -> dict[str, Any]:
        """The format by name and its keys, as plain values."""
        layout = self.layout.model_dump(mode="json") if self.layout else {}
        return {"format": self.format, **layout}

    def placed(self, place: Callable[[str], str]) -> TaskOptions:
        """The same options with absolute paths, as `place` makes them."""
        update: dict[str, Any] = {"root": place(self.root)} if self.root else {}
        if self.layout is not None:
            update["layout"] = self.layout.placed(place)
        return self.model_copy(update=update)


def _layout(name: Any, own: dict[str, Any]) -> DataFormat | None:
    """The format of that name with its keys; faults of single keys are reported as those of the task."""
    if not isinstance(name, str):
        for key in own:
            if (owner := format_of_key(key)) is not None:
                raise ValueError(f"{key} is only for format {owner}")
        if own:
            raise _faulty(own, "extra_forbidden")
        return None
    try:
        chosen = format_class(name)
    except UserError as error:
        raise _faulty({"format": name}, PydanticCustomError("format", "{message}", {"message": str(error)})) from error
    for key in own:
        if key not in chosen.model_fields and (owner := format_of_key(key)) is not None:
            raise ValueError(f"{key} is only for format {owner}")
    return chosen.model_validate(own)


def _faulty(values: dict[str, Any], fault: str | PydanticCustomError) -> ValidationError:
    """The same fault of several keys."""
    faults = [InitErrorDetails(type=fault, loc=(key,), input=value) for key, value in values.items()]
    return ValidationError.from_exception_data("TaskOptions", faults)


class GeneratedOptions(opt.Options):
    """Images drawn by seed for tasks that have no data set."""

    draws: Literal["source", "domains", "chest"]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    num_train: opt.Images = 1000
    num_test: opt.Images = 500
    """Each at most 100,000,000."""
    size: opt.Pixels = 48
    """Side in pixels, at most 8,192."""


class RunKindOptions(opt.Options):
    """Runs that differ in task and replica only."""

    label: Label
    """Name in tables and figures: P, P-T, RI-T, ... Any text of one line and at most 200 letters.

    Kinds whose runs are no replicas of each other need labels of their own.
    """
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    replicas: Annotated[int, Field(gt=0, le=MAX_REPLICAS)] = 1
    """Runs that differ in their seeds only, at most 10,000 on each task."""
    initialisation: Literal["random", "pretrained", "checkpoint"] = "random"
    pretrained: opt.PathText | None = None
    """Run whose weights are taken, e.g. shapes.p_1, or the path of a checkpoint file."""
    pretrained_epoch: Literal["best", "final"] | opt.Epoch = "final"
    transfer: opt.Transfer = "weights"
    """Taken of the pre-trained model: weights, or statistics (mean and standard deviation of each tensor)."""
    transfer_until: str | None = None
    """The last module that is pre-trained, e.g. layer2.0; those after it stay random. None: all."""
    shares_initialisation_with: str | None = None
    """Kind whose replica of the same number gives the initial weights."""
    split_from: str | None = None
    """Kind whose replica of the same number is copied: the same model, training, start and order of the examples up to
    an epoch of `split_epochs`, and another order from there on. A copy for each of them: rit_split_e2_1."""
    split_epochs: Annotated[tuple[opt.Epoch, ...], Field(max_length=MAX_SPLITS)] = ()
    """Epochs after which copies go their own way; 0: before the first one. At most 1,000."""
    checkpoint: opt.PathText | None = None
    """A checkpoint file that exists: nothing is trained. With `pretrained` the run that it was fine-tuned from."""
    checkpoints: Annotated[tuple[opt.PathText, ...], Field(min_length=1)] | None = None
    """Several such files, each a replica: a list, or a pattern as folder/*.pth, by the numbers in their names."""
    pairing: opt.Pairing = "first"
    """Of a kind with `checkpoints`, the pairs among these: each with the first one, consecutive ones, or all."""
    weights: str | None = None
    """Of the file given as checkpoint or pretrained: the key of the weights that are taken, e.g. model_ema."""
    prefix: str | None = None
    """Of that file: what stands before the names of the network, e.g. student.backbone; the rest is left out."""
    compared: bool = False
    """True: claims compare this kind, where a task has several of its role. Else the first of them is compared. A kind
    that is pre-trained in part takes the role of one that is pre-trained as a whole."""
    model: opt.ModelOptions | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    training_on: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further overrides for single tasks."""

    @model_validator(mode="before")
    @classmethod
    def _replicas_are_the_files(cls, values: Any) -> Any:
        """Make a list of a single file, and count the files as replicas."""
        files = values.get("checkpoints") if isinstance(values, dict) else None
        if isinstance(files, str):
            files = [files]
        if not isinstance(files, list | tuple) or not files:
            return values
        if values.get("replicas", len(files)) != len(files):
            raise ValueError(f"replicas: follows from checkpoints, of which there are {len(files)}")
        return values | {"checkpoints": files, "replicas": len(files)}

    @model_validator(mode="after")
    def _initialisation_has_its_source(self) -> RunKindOptions:
        if (self.initialisation == "checkpoint") != self.is_file:
            raise ValueError("initialisation: checkpoint and the key checkpoint, or checkpoints, go together")
        if (self.initialisation == "pretrained") != (self.pretrained is not None) and not self.is_file:
            raise ValueError("initialisation: pretrained and the key pretrained go together")
        if self.checkpoint is not None and self.checkpoints is not None:
            raise ValueError("give either checkpoint or checkpoints")
        if self.checkpoints is None and "pairing" in self.model_fields_set:
            raise ValueError("pairing is only for a kind with checkpoints")
        if self.checkpoint is not None and self.replicas > 1:
            raise ValueError("replicas: a checkpoint file is a single run; give every file a kind of its own")
        if self.initialisation != "pretrained":
            for key in ("transfer", "transfer_until"):
                if getattr(self, key) not in (None, "weights"):
                    raise ValueError(f"{key} is only for runs with initialisation: pretrained")
        for key in ("weights", "prefix"):
            if getattr(self, key) is not None and self.initialisation == "random":
                raise ValueError(f"{key} is only for runs with a file, given as checkpoint or pretrained")
        return self

    @property
    def is_file(self) -> bool:
        """True if its runs are checkpoint files: nothing is trained."""
        return self.checkpoint is not None or self.checkpoints is not None

    @model_validator(mode="after")
    def _copies_are_as_their_parent(self) -> RunKindOptions:
        if (self.split_from is not None) != bool(self.split_epochs):
            raise ValueError("split_from and split_epochs go together")
        own = [key for key in OF_THE_PARENT if key in self.model_fields_set]
        if self.split_from is not None and own:
            raise ValueError(f"{own[0]} of a copy is that of the runs it splits from: remove it")
        return self


OF_THE_PARENT = (
    "initialisation", "pretrained", "pretrained_epoch", "shares_initialisation_with", "checkpoint", "checkpoints",
    "weights", "prefix", "model", "training", "training_on",
)  # fmt: skip
"""Options that a kind with `split_from` has from there."""


class Study(opt.Options):
    """The study as a user writes it in `parameters*.yml`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    models_folder: opt.PathText = "data/06_models"
    """Folder in which runs train; the catalog's checkpoints lie there."""
    tasks: Annotated[dict[Name, TaskOptions], Field(max_length=MAX_NAMES)]
    """At most 1,000."""
    generated: dict[Name, GeneratedOptions] = Field(default_factory=dict)
    runs: Annotated[dict[Name, RunKindOptions], Field(max_length=MAX_NAMES)]
    """Kinds of run, at most 1,000."""
    feature_reuse: opt.FeatureReuseOptions | None = None
    """Runs on shuffled images, and with parts of the pre-trained model only."""
    source_epochs: opt.SourceEpochsOptions | None = None
    """Runs from earlier epochs of the pre-trained model."""
    pictures: opt.PictureOptions = opt.PictureOptions()
    model: opt.ModelOptions = opt.ModelOptions()
    training: dict[str, Any] = Field(default_factory=dict)
    analyses: opt.AnalysesOptions = opt.AnalysesOptions()
    report: opt.ReportOptions = opt.ReportOptions()


def pictures_of(study: Study, task: str) -> opt.PictureOptions:
    """Settings of the stored and shown images of a task; a union without settings of its own has those of its parts."""
    options = study.tasks[task]
    if options.pictures is None and options.union:
        return pictures_of(study, options.union[0])
    return options.pictures or study.pictures


def is_multi_label(study: Study, task: str) -> bool:
    """True if an example of the task has several labels."""
    options = study.tasks[task]
    if options.layout is not None:
        return options.layout.multi_label
    return any(is_multi_label(study, part) for part in options.union or ())
