"""Fingerprints of runs: digests of everything that decides the weights.

Task and images (wherever they lie), model, training, initialisation, seeds, the fingerprint of the run that it starts
from, and the digests of checkpoint files and of code of the user's own. How many processes compute the weights decides
nothing (`options.NOT_IN_WEIGHTS`); when and on how many images they are evaluated counts, since the history and the
best epoch follow from it. `experiment.expansion` collects the values of each
run of the plan. A checkpoint is stale where its fingerprint is not that of the plan: `framework.input_checks` refuses
it, and `training` makes it again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from transferscope.experiment import options as opt
from transferscope.experiment.study import Study, pictures_of

LATER_KEYS = ("value_range", "max_train", "max_test")
"""Options of a task that came later than others, and count where they are used."""


def fingerprint_of(values: dict[str, Any]) -> str:
    """Digest of everything that decides weights and history; how many processes compute them does not."""
    content = {key: _decisive(value) if isinstance(value, opt.Options) else value for key, value in values.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _decisive(options: opt.Options) -> dict[str, Any]:
    """The options that decide weights; those that came later than others count where they are used."""
    values = options.model_dump(exclude=opt.NOT_IN_WEIGHTS)
    for key in ("frozen", "optimizer", "evaluate_train_on"):
        if key in values and not values[key]:
            del values[key]
    return values


def data_identity(study: Study, task: str) -> dict[str, Any]:
    """Options that decide the images of a task, wherever they lie."""
    options = study.tasks[task]
    if options.union:
        parts = [data_identity(study, part) for part in options.union]
        shown = pictures_of(study, task).model_dump()
        return {"union": parts, "pictures": shown, "select_best_on": options.select_best_on}
    drawn = [item.model_dump() for item in study.generated.values() if task in item.tasks]
    identity = options.model_dump(exclude={"root", "training", "pictures", "num_workers"})
    for key in LATER_KEYS:  # as before there was this key
        if key in identity and identity[key] is None:
            del identity[key]
    if not options.has_images:
        identity["images"] = None
    return identity | {
        "drawn": drawn,
        "seed": study.seed if drawn else None,
        "pictures": pictures_of(study, task).model_dump(),
    }
