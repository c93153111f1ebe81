"""What one training is: everything that `train_run` reads of a run of the plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from transferscope.experiment.options import ModelOptions, TrainingOptions

Initialisation = Literal["random", "pretrained", "checkpoint"]


class RunLike(Protocol):
    """A run of the plan, or any object with these attributes."""

    @property
    def task(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def replica(self) -> int: ...
    @property
    def initialisation(self) -> Initialisation: ...
    @property
    def init_seed(self) -> int: ...
    @property
    def order_seed(self) -> int: ...
    @property
    def model(self) -> ModelOptions: ...
    @property
    def training(self) -> TrainingOptions: ...
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class TrainingRun:
    """A run by itself: for a notebook without a plan, and for the worker processes, which get it as JSON.

    `init_seed` draws the initial weights, `order_seed` the order of the data and its augmentation.
    `fingerprint` names everything that decides the weights: snapshots and series of another one are not used.
    """

    task: str
    name: str
    kind: str = "run"
    replica: int = 1
    initialisation: Initialisation = "random"
    init_seed: int = 0
    order_seed: int = 0
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    fingerprint: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.task}.{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("model", "training")}
        return plain | {"model": self.model.model_dump(), "training": self.training.model_dump()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingRun:
        model = ModelOptions.model_validate(values["model"])
        training = TrainingOptions.model_validate(values["training"])
        return cls(**values | {"model": model, "training": training})

    @classmethod
    def of(cls, run: RunLike) -> TrainingRun:
        """The same run as an object of this class."""
        return cls(**{name: getattr(run, name) for name in cls.__dataclass_fields__})
