"""Make the plan: the study with every run spelled out.

`make_plan` reads straight down: validate (`study`), look for faults (`study_faults`), expand into runs with their seeds
and fingerprints (`expansion`, `seeds`, `fingerprint`), and look for faults again (`plan_faults`). Names that are
imported as themselves stay importable from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from transferscope.experiment.expansion import FileDigest, all_trainings, expand
from transferscope.experiment.names import CHECKPOINT_SUFFIXES as CHECKPOINT_SUFFIXES
from transferscope.experiment.pairs import labels_in as labels_in
from transferscope.experiment.pairs import pair_kind as pair_kind
from transferscope.experiment.plan_faults import faults_of_plan
from transferscope.experiment.plan_type import NO_TREATMENT as NO_TREATMENT
from transferscope.experiment.plan_type import Plan as Plan
from transferscope.experiment.reuse_variants import expanded
from transferscope.experiment.reuse_variants import faults as faults_of_reuse
from transferscope.experiment.seeds import derive_seed as derive_seed
from transferscope.experiment.study import Study
from transferscope.experiment.study import pictures_of as pictures_of
from transferscope.experiment.study_faults import MAX_LISTED as MAX_LISTED
from transferscope.experiment.study_faults import MAX_PAIRS as MAX_PAIRS
from transferscope.experiment.study_faults import MAX_RUNS as MAX_RUNS
from transferscope.experiment.study_faults import faults_of_starts, faults_of_study
from transferscope.experiment.validation_messages import explain
from transferscope.system.errors import UserError, one_message


def make_plan(parameters: dict[str, Any] | Study, file_digest: FileDigest = lambda path: None) -> Plan:
    """Validate the parameters and expand them; one `UserError` names every key that is wrong.

    `file_digest` gives the digest of a checkpoint file that a run starts from or consists of, by its path as written,
    or of the file that holds the code of `mypackage.nets:build`, or None where it is not known: the run's fingerprint
    then follows from the name alone.
    """
    try:
        study = Study.model_validate(parameters)
    except ValidationError as error:
        raise UserError(one_message(explain(error, Study))) from None
    _refuse(faults_of_reuse(study))
    study = expanded(study)
    _refuse(faults_of_study(study))
    trainings, faults = all_trainings(study)
    _refuse([*faults, *faults_of_starts(study)])
    plan = Plan(study, expand(study, trainings, file_digest))
    _refuse(faults_of_plan(plan))
    return plan


def _refuse(faults: Iterable[str]) -> None:
    """Raise one UserError that lists all faults, if there are any."""
    messages = list(faults)
    if messages:
        raise UserError(one_message(messages))
