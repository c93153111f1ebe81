"""What a user writes in `parameters*.yml`, and what is said when it is wrong.

Pure and typed; `transferscope.experiment.plan` expands it into runs and pairs.
"""

from __future__ import annotations

import itertools
import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from transferscope.experiment import options as opt

RESERVED = ("claims", "cross_domain", "generated", "parameters", "plan", "report", "study", "summary")
"""Names of results that belong to no task."""

MAX_LABEL = 200
MAX_REPLICAS = 10_000
MAX_NAMES = 1_000
"""Tasks, and kinds of run."""
MAX_IMAGES = 100_000_000


def _name(text: str) -> str:
    if "__" in text or text in RESERVED:
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


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    return text


Place = Annotated[str, AfterValidator(_path)]
"""The path of a file or folder; relative ones begin at the project's folder."""
Label = Annotated[str, AfterValidator(_label), Field(max_length=MAX_LABEL)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES)]


ONLY_FOR = {
    "domain": "domainnet",
    "limit": "domainnet",
    "untrained_classes": "domainnet",
    "test_share": "image_folder",
    "class_list": "image_folder",
    "num_train": "chexpert",
    "num_test": "chexpert",
    "num_validation": "chexpert",
    "sampling": "chexpert",
    "uncertain": "chexpert",
    "blank": "chexpert",
    "views": "chexpert",
    "double_positives": "chexpert",
}
"""Keys of a task that one layout alone has."""

LabelPolicy = Literal["ones", "zeros", "ignore"]
"""What a label that is not known becomes; ignored labels count neither in the loss nor in metrics."""


class TaskOptions(opt.Options):
    """A data set with a label space: a folder in a known layout, or the union of other tasks."""

    format: Literal["domainnet", "chexpert", "image_folder"] | None = None
    root: Place | None = None
    """The folder with the images, or an archive. image_folder: null where there are none, and checkpoint files are
    compared by their weights alone."""
    domain: str | None = None
    """DomainNet: the domain; default: the task's name."""
    limit: Images | None = None
    """DomainNet: largest number of images of a part, drawn as the study drew them; None: 50,000."""
    untrained_classes: Literal["refuse", "keep"] = "refuse"
    """DomainNet: classes that the test list has and the train list lacks."""
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Class folders without parts: the share of each class that is for testing; not used where there are parts."""
    class_list: Place | None = None
    """Class folders: a text file with a class a line, in the order of a classifier's outputs."""
    num_train: Images | None = None
    num_test: Images | None = None
    """CheXpert: sizes of the samples; None: 50,000 each."""
    num_validation: Images | None = None
    """CheXpert: images beside these for choosing `best`; needs select_best_on: validation."""
    sampling: Literal["paper", "by_patient"] = "paper"
    """CheXpert: images drawn one by one, as in the study, or whole patients, so that none is in two parts."""
    uncertain: LabelPolicy | dict[str, LabelPolicy] = Field(default_factory=dict)
    """CheXpert: what -1 becomes, for all findings or by finding; default: as the authors' code has it."""
    blank: LabelPolicy | dict[str, LabelPolicy] = "zeros"
    """CheXpert: what a finding becomes that is not mentioned."""
    views: Literal["all", "frontal", "lateral"] = "all"
    double_positives: tuple[str, ...] = ()
    """CheXpert: findings whose positive train rows come twice; the authors' code: Cardiomegaly, Consolidation."""
    select_best_on: Literal["test", "validation"] = "test"
    """The part on which the epoch `best` is chosen. The authors chose on test, which flatters `best`."""
    on_bad_image: Literal["stop", "drop"] = "stop"
    value_range: tuple[float, float] | None = None
    """Values of black and white in grey images of more than 8 bits, e.g. [0, 4095] of 12 bits; others are clipped."""
    num_workers: opt.Processes | None = None
    """Threads that pack the images; None: one for each core."""
    union: tuple[str, ...] | None = None
    """Tasks of one label space to be joined, without storing an image twice; one task: a view of it."""
    pictures: opt.PictureOptions | None = None
    """Overrides the study's pictures, whole. A union may differ from its parts in what happens after storing."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the study's training for runs on this task."""

    @model_validator(mode="after")
    def _either_folder_or_union(self) -> TaskOptions:
        if (self.union is None) == (self.format is None):
            raise ValueError("give either format and root, or union")
        if self.format is not None and self.root is None and not self._is_null_by_choice():
            raise ValueError("root is missing: the folder that holds the images")
        for key in self.model_fields_set & ONLY_FOR.keys():
            if self.format != ONLY_FOR[key]:
                raise ValueError(f"{key} is only for format {ONLY_FOR[key]}")
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
        if self.select_best_on == "validation" and (self.format == "domainnet" or self.test_share is not None):
            raise ValueError("select_best_on: this layout has no validation part")
        if self.format == "chexpert" and (self.select_best_on == "validation") != (self.num_validation is not None):
            raise ValueError("select_best_on: validation and num_validation go together")
        return self

    def _is_null_by_choice(self) -> bool:
        return "root" in self.model_fields_set and self.format == "image_folder"

    @property
    def has_images(self) -> bool:
        """Whether there are images, of the task itself or of those that it joins."""
        return self.union is not None or self.root is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits of the task."""
        return ("train", "test", "validation") if self.select_best_on == "validation" else ("train", "test")


class GeneratedOptions(opt.Options):
    """Images drawn by seed for tasks that have no data set."""

    draws: Literal["source", "domains", "chest"]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    num_train: Images = 1000
    num_test: Images = 500
    """Each at most 100,000,000."""
    size: opt.Pixels = 48
    """Side in pixels, at most 8,192."""


class RunKindOptions(opt.Options):
    """Runs that differ in task and replica only."""

    label: Label
    """Name in tables and figures: P, P-T, RI-T, ... Any text of one line and at most 200 letters."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    replicas: Annotated[int, Field(gt=0, le=MAX_REPLICAS)] = 1
    """Runs that differ in their seeds only, at most 10,000 on each task."""
    initialisation: Literal["random", "pretrained", "checkpoint"] = "random"
    pretrained: Place | None = None
    """Run whose weights are taken, e.g. shapes.p_1, or the path of a checkpoint file."""
    pretrained_epoch: Literal["best", "final"] | opt.Epoch = "final"
    shares_initialisation_with: str | None = None
    """Kind whose replica of the same number gives the initial weights."""
    checkpoint: Place | None = None
    """A checkpoint file that exists: nothing is trained."""
    weights: str | None = None
    """Of the file given as checkpoint or pretrained: the key of the weights that are taken, e.g. model_ema."""
    prefix: str | None = None
    """Of that file: what stands before the names of the network, e.g. student.backbone; the rest is left out."""
    model: opt.ModelOptions | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    training_on: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further overrides for single tasks."""

    @model_validator(mode="after")
    def _initialisation_has_its_source(self) -> RunKindOptions:
        for initialisation, field in (("pretrained", "pretrained"), ("checkpoint", "checkpoint")):
            if (self.initialisation == initialisation) != (getattr(self, field) is not None):
                raise ValueError(f"initialisation: {initialisation} and the key {field} go together")
        if self.checkpoint is not None and self.replicas > 1:
            raise ValueError("replicas: a checkpoint file is a single run; give every file a kind of its own")
        for key in ("weights", "prefix"):
            if getattr(self, key) is not None and self.initialisation == "random":
                raise ValueError(f"{key} is only for runs with a file, given as checkpoint or pretrained")
        return self


class Study(opt.Options):
    """What a user writes in `parameters*.yml`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    models_folder: Place = "data/06_models"
    """Where runs train; the catalog's checkpoints lie there."""
    tasks: Annotated[dict[Name, TaskOptions], Field(max_length=MAX_NAMES)]
    """At most 1,000."""
    generated: dict[Name, GeneratedOptions] = Field(default_factory=dict)
    runs: Annotated[dict[Name, RunKindOptions], Field(max_length=MAX_NAMES)]
    """Kinds of run, at most 1,000."""
    pictures: opt.PictureOptions = opt.PictureOptions()
    model: opt.ModelOptions = opt.ModelOptions()
    training: dict[str, Any] = Field(default_factory=dict)
    analyses: opt.AnalysesOptions = opt.AnalysesOptions()
    report: opt.ReportOptions = opt.ReportOptions()


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


BRANCH = re.compile(r"(int|str|float|bool|constrained-\w+|.*[\[(].*)$")
"""How pydantic names the alternatives of a value, below its key."""


def explain(error: ValidationError, model: type[opt.Options], prefix: str = "") -> list[str]:
    """Every fault of a validation error as a line: the key, what is wrong, what is allowed."""
    found: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in error.errors():
        key, message = _explained(fault, model, prefix)
        found.setdefault(key, []).append(message)
        given[key] = "" if isinstance(fault["input"], dict) else f" (got {reprlib.repr(fault['input'])})"
        if fault["type"] in ("extra_forbidden", "missing"):
            given[key] = ""
    return [f"{key}: {'; or: '.join(dict.fromkeys(messages))}{given[key]}" for key, messages in found.items()]


def _explained(fault: Any, model: type[opt.Options], prefix: str) -> tuple[str, str]:
    keys = [str(part) or "''" for part in itertools.takewhile(_is_key, fault["loc"])]
    key = ".".join([*([prefix] if prefix else []), *keys]) or "parameters"
    if fault["type"] == "extra_forbidden":
        allowed = _fields_at(model, fault["loc"][:-1])
        return key, f"unknown key; allowed: {listed(allowed)}"
    if fault["type"] == "missing":
        return key, "this key is missing"
    if fault["type"] == "string_pattern_mismatch":
        return key, "a name is lower-case letters, digits and single underscores, and begins with a letter"
    if fault["type"] in SHAPES:
        return key, SHAPES[fault["type"]]
    return key, fault["msg"].removeprefix("Value error, ")


SHAPES = dict.fromkeys(("model_type", "dict_type", "model_attributes_type"), "needs `key: value` lines below it") | {
    "tuple_type": "needs a list, as [a, b]"
}
"""What pydantic says in Python's words."""


def _is_key(part: int | str) -> bool:
    return isinstance(part, int) or not BRANCH.match(part)


def _fields_at(model: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """Field names of the options that a location inside `model` leads to."""
    for part in location:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        model = _options_in(annotation) or model
    return model.model_fields


def _options_in(annotation: Any) -> type[opt.Options] | None:
    """The options class inside an annotation such as `dict[str, X]`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, opt.Options):
        return annotation
    inner = (_options_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
