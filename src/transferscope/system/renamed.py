"""Import public modules and objects by the names that they had in version 0.1, with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

RENAMED = {
    "transferscope.analysis.comparisons": "transferscope.analysis.layer_pairs",
    "transferscope.analysis.evaluation": "transferscope.analysis.evaluator",
    "transferscope.errors": "transferscope.system.errors",
    "transferscope.images.fingerprint": "transferscope.images.source_digest",
    "transferscope.images.generated": "transferscope.generated.draw",
    "transferscope.images.shuffle": "transferscope.images.shuffled_images",
    "transferscope.options": "transferscope.experiment.options",
    "transferscope.plan": "transferscope.experiment.plan",
    "transferscope.plots.images": "transferscope.plots.galleries",
    "transferscope.plots.labels": "transferscope.plots.class_labels",
    "transferscope.plots.lines": "transferscope.plots.marks",
    "transferscope.plots.series": "transferscope.plots.rows",
    "transferscope.plots.shuffled": "transferscope.plots.shuffled_images",
    "transferscope.report.formats": "transferscope.tables.formats",
    "transferscope.report.grid": "transferscope.tables.grid",
    "transferscope.report.terminal": "transferscope.tables.terminal",
    "transferscope.report.view": "transferscope.report.sections",
    "transferscope.runners": "transferscope.framework.runners",
    "transferscope.study": "transferscope.experiment.study",
    "transferscope.training.copies": "transferscope.models.series",
    "transferscope.training.events": "transferscope.training.history",
    "transferscope.training.failure": "transferscope.training.distributed.failure",
    "transferscope.training.feed": "transferscope.images.feed",
    "transferscope.training.group": "transferscope.training.distributed.group",
    "transferscope.training.inputs": "transferscope.training.record",
    "transferscope.training.launch": "transferscope.training.distributed.launch",
    "transferscope.training.metrics": "transferscope.training.evaluation",
    "transferscope.training.objective": "transferscope.training.step",
    "transferscope.training.order": "transferscope.experiment.seeds",
    "transferscope.training.parents": "transferscope.training.distributed.parents",
    "transferscope.training.run": "transferscope.experiment.run",
    "transferscope.training.timings": "transferscope.training.history",
    "transferscope.training.worker": "transferscope.training.distributed.worker",
}
"""Name in version 0.1 -> name now."""

RENAMED_OBJECTS = {
    ("transferscope.analysis.basin", "LineBoundary"): ("transferscope.analysis.line_boundary", "LineBoundary"),
    ("transferscope.analysis.basin", "last_inside"): ("transferscope.analysis.hull_samples", "last_inside"),
    ("transferscope.analysis.basin", "line_boundary"): ("transferscope.analysis.line_boundary", "line_boundary"),
    ("transferscope.analysis.comparisons", "Comparison"): ("transferscope.analysis.layer_pairs", "LayerComparison"),
    ("transferscope.analysis.criticality", "module_criticality"): (
        "transferscope.analysis.module_criticality",
        "module_criticality",
    ),
    ("transferscope.analysis.criticality", "network_criticality"): (
        "transferscope.analysis.module_criticality",
        "network_criticality",
    ),
    ("transferscope.images.augment", "SeenImages"): ("transferscope.images.seen_images", "SeenImages"),
    ("transferscope.images.augment", "mixup"): ("transferscope.images.mixup", "mixup"),
    ("transferscope.images.augment", "shuffle_of"): ("transferscope.images.seen_images", "shuffle_of"),
    ("transferscope.images.image_folder", "EXTENSIONS"): ("transferscope.images.image_suffixes", "EXTENSIONS"),
    ("transferscope.images.split", "content_digest"): ("transferscope.images.split_files", "content_digest"),
    ("transferscope.images.split", "write_description"): ("transferscope.images.split_files", "write_description"),
    ("transferscope.images.split", "write_split_files"): ("transferscope.images.split_files", "write_split_files"),
    ("transferscope.report.view", "ClaimView"): ("transferscope.report.claims_table", "ClaimView"),
    ("transferscope.report.view", "MARKS"): ("transferscope.report.claims_table", "MARKS"),
    ("transferscope.report.view", "Panel"): ("transferscope.report.figure_panels", "Panel"),
    ("transferscope.report.view", "claim_views"): ("transferscope.report.claims_table", "claim_views"),
    ("transferscope.report.view", "provenance_groups"): ("transferscope.report.provenance", "provenance_groups"),
    ("transferscope.report.view", "unlearned"): ("transferscope.report.chapters.training", "unlearned"),
    ("transferscope.training", "TrainingRun"): ("transferscope.experiment.run", "RunSpec"),
    ("transferscope.training.inputs", "check_last_batch"): ("transferscope.training.trainee", "check_last_batch"),
    ("transferscope.training.inputs", "evaluated_examples"): (
        "transferscope.training.evaluation",
        "evaluated_examples",
    ),
    ("transferscope.training.run", "RunLike"): ("transferscope.experiment.run", "RunSpec"),
    ("transferscope.training.run", "TrainingRun"): ("transferscope.experiment.run", "RunSpec"),
    ("transferscope.training.worker", "ProcessGroup"): ("transferscope.training.distributed.group", "ProcessGroup"),
}
"""Module and name of an object in version 0.1 -> both now."""


class _RenamedModules(MetaPathFinder, Loader):
    """Stands last on `sys.meta_path`, so only names that no file has come here."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in RENAMED else None

    def exec_module(self, module: ModuleType) -> None:
        now = RENAMED[module.__name__]
        warnings.warn(f"{module.__name__} is {now} now", DeprecationWarning, stacklevel=2)
        public = {name: value for name, value in vars(import_module(now)).items() if not name.startswith("__")}
        vars(module).update(public)
        for (old, name), (place, name_now) in RENAMED_OBJECTS.items():
            if old == module.__name__:
                setattr(module, name, getattr(import_module(place), name_now))


def renamed_object(module: str, name: str) -> object:
    """The object that was `module.name`, with a warning, or None: for the `__getattr__` of a package."""
    if (module, name) not in RENAMED_OBJECTS:
        return None
    place, name_now = RENAMED_OBJECTS[module, name]
    warnings.warn(f"{module}.{name} is {place}.{name_now} now", DeprecationWarning, stacklevel=3)
    return getattr(import_module(place), name_now)


def install() -> None:
    """Make the old names importable; a second call changes nothing."""
    if not any(isinstance(finder, _RenamedModules) for finder in sys.meta_path):
        sys.meta_path.append(_RenamedModules())
