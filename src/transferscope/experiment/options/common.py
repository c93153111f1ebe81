"""Limits, types and bases that the options of several subjects share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# Counts have limits far above any study, so that a mistyped one is refused before it takes memory without end.
MAX_EPOCHS = 100_000
MAX_POINTS = 10_000
"""Points of a line, or values in any list of them."""
MAX_SIDE = 1_000
"""Points of each side of a plane."""
MAX_DRAWS = 100_000
"""Random points, rays and draws."""
MAX_RESAMPLES = 100_000
MAX_IMAGES = 100_000_000
MAX_PIXELS = 8_192
"""Side of an image."""
MAX_BATCH = 1_000_000
MAX_PROCESSES = 4_096
"""Processes, threads, machines."""
MAX_SHOWN = 1_000
"""Classes, rows and pairs in one figure."""
Epochs = Annotated[int, Field(gt=0, le=MAX_EPOCHS)]
Epoch = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]
Points = Annotated[int, Field(ge=2, le=MAX_POINTS)]
Draws = Annotated[int, Field(gt=0, le=MAX_DRAWS)]
Resamples = Annotated[int, Field(gt=0, le=MAX_RESAMPLES)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES)]
Pixels = Annotated[int, Field(gt=0, le=MAX_PIXELS)]
Processes = Annotated[int, Field(gt=0, le=MAX_PROCESSES)]
Shown = Annotated[int, Field(gt=0, le=MAX_SHOWN)]
Precision = Literal["float32", "bfloat16", "auto"]
"""Of analyses. auto: bfloat16 on GPUs that have it, else float32."""
TrainingPrecision = Literal["float32", "bfloat16", "float16", "auto"]
Transfer = Literal["weights", "statistics"]


def _path(text: str) -> str:
    if not text.strip():
        raise ValueError("the path is empty")
    if "\0" in text:
        raise ValueError("a path holds no NUL character")
    return text


PathText = Annotated[str, AfterValidator(_path)]
"""The path of a file or folder; relative ones begin at the project's folder."""


class Options(BaseModel):
    """Base of all options: immutable, unknown keys refused, as are numbers that are infinite or not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def keys(cls) -> list[str]:
        """Keys that a user may write."""
        return list(cls.model_fields)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false (in YAML also yes, no, on, off) where pydantic would read 1 and 0."""
        inside = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(part, bool) for part in inside) and not _takes_truth(
            cls.model_fields[str(info.field_name)].annotation
        ):
            raise ValueError("true and false (in YAML also yes, no, on and off) are no value here")
        return value


def _takes_truth(annotation: Any) -> bool:
    """True if true and false are values of an annotation such as `bool | None`."""
    return annotation in (bool, Any) or any(map(_takes_truth, getattr(annotation, "__args__", ())))


KindPair = tuple[str, str]
"""Two kinds of run by name, e.g. ("pt", "rit")."""
Pairing = Literal["first", "consecutive", "all"]
"""Pairs of runs of one kind: each with the first one, each with the next one, or all."""


class LookOptions(Options):
    """Examples come in growing batches until they decide; one looks after each."""

    first: Annotated[int, Field(ge=16)] = 32
    """Examples after which one looks for the first time."""
    growth: Annotated[float, Field(gt=1, le=10)] = 1.5
    """Factor from the examples of one look to those of the next."""


class GridOptions(Options):
    """Evenly spaced points from `start` to `stop`, both included, or any list of points."""

    start: float = 0.0
    stop: float = 1.0
    points: Points = 11
    """At most 10,000."""
    at: Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_POINTS)] | None = None
    """These points instead of even ones."""

    def values(self) -> list[float]:
        if self.at is not None:
            return list(self.at)
        step = (self.stop - self.start) / (self.points - 1)
        return [round(self.start + step * index, 10) for index in range(self.points)]


BestOrFinal = Literal["best", "final"]
