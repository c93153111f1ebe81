"""Formats of data sets on disk, as far as the plan knows them.

A format is one class, a subclass of `transferscope.images.source.ImageFormat`. Its fields are the keys that a task of
this format may have beside those of `TaskOptions`, and `read` lists the images. The built-in ones stand beside their
readers in `transferscope.images`; a format of one's own is named as `format: mypackage.module:ClassName`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

from transferscope.experiment.options import Options
from transferscope.system.errors import UserError
from transferscope.system.near import near_matches
from transferscope.system.references import is_reference, resolve

BUILT_IN = {
    "domainnet": "transferscope.images.domainnet:DomainNet",
    "chexpert": "transferscope.images.chexpert:CheXpert",
    "image_folder": "transferscope.images.image_folder:ImageFolder",
}


class DataFormat(Options):
    """The options of a format as fields, and what the plan asks of it.

    multi_label: whether an example has several labels. by_patient: whether examples belong to patients, who are counted
    over parts. path_options: fields that hold paths.
    """

    multi_label: ClassVar[bool] = False
    by_patient: ClassVar[bool] = False
    path_options: ClassVar[tuple[str, ...]] = ()

    def validation_fault(self, *, wanted: bool) -> str | None:
        """The reason why the task cannot have, or must have, a part for validation; None: it may be as wanted."""

    def sample_sizes(self) -> tuple[int, int] | None:
        """Largest number of train and test images that are drawn; None: all that there are."""

    def placed(self, place: Callable[[str], str]) -> Self:
        """The same options with absolute paths, as `place` makes them."""
        paths = {key: getattr(self, key) for key in self.path_options}
        return self.model_copy(update={key: place(path) for key, path in paths.items() if path is not None})


def format_class(name: str) -> type[DataFormat]:
    """The class of a format.

    Args:
        name: one of `BUILT_IN`, or `module:Class`.

    Raises:
        UserError: there is no such format, or the class is none.
    """
    if name not in BUILT_IN and not is_reference(name):
        raise UserError(f"no format has this name{near_matches(name, BUILT_IN)}, or give your own as module:Class")
    found = resolve(BUILT_IN.get(name, name), "format")
    read = getattr(found, "read", None)
    reads = read is not None and not getattr(read, "__isabstractmethod__", False)
    if not (isinstance(found, type) and issubclass(found, DataFormat) and reads):
        raise UserError(f"{name} is no subclass of transferscope.images.source.ImageFormat with a method `read`")
    return found


def format_of_key(key: str) -> str | None:
    """The built-in format that alone has an option; None: no format has it."""
    return next((name for name in BUILT_IN if key in format_class(name).model_fields), None)
