"""From what, with what and in what time the results were made."""

from __future__ import annotations

import pandas as pd

from drawn_study import change_study
from transferscope.claims.evidence import TaskResults
from transferscope.experiment.plan import Plan
from transferscope.report.provenance import provenance


def results(**tables: pd.DataFrame) -> dict[str, TaskResults]:
    return {"real": TaskResults("real", {}, tables), "cross_domain": TaskResults("cross_domain")}


def test_durations_are_summed_by_task(plan: Plan) -> None:
    """Two runs of an hour and a minute, one of 3.4 s; a task without timings is left out."""
    timings = pd.DataFrame({"task": "real", "run": ["a", "b"], "seconds": [3600.0, 63.4]})
    assert provenance(plan, results(timings=timings))["durations of the trainings"] == {
        "real": "1 h 1 min 3 s for 2 runs"
    }
    one = timings.iloc[:1].assign(seconds=0.2)
    assert provenance(plan, results(timings=one))["durations of the trainings"] == {"real": "0 s for 1 run"}
    assert provenance(plan, results())["durations of the trainings"] == {}


def test_images_and_weights_have_digests(plan: Plan) -> None:
    """Those of the splits' table, cut to 16 digits, and the fingerprints of the plan."""
    splits = pd.DataFrame({"part": ["train", "test"], "digest": ["0" * 64, "1" * 64]})
    facts = provenance(plan, results(splits=splits))
    assert facts["digests of the images"] == {"real, train": "0" * 16, "real, test": "1" * 16}
    assert facts["fingerprints of the runs"]["real.pt_1"] == plan.runs["real.pt_1"].fingerprint


def test_the_hardware_is_named(plan: Plan) -> None:
    """Processor, cores and memory, each with a value."""
    facts = provenance(plan, results())["hardware"]
    assert {"system", "processor", "cores", "memory"} <= facts.keys()
    assert all(facts.values())


def test_another_plan_has_another_digest() -> None:
    """The same plan has the same."""
    digests = {provenance(change_study(seed=seed), results())["plan_digest"] for seed in (1, 2, 1)}
    assert len(digests) == 2
