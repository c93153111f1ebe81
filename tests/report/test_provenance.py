"""From what, with what and in what time the results were made."""

from __future__ import annotations

from typing import Any

import pandas as pd
from transferscope.claims.results import TaskResults

from transferscope.report.provenance import provenance

STUDY: dict[str, Any] = {
    "seed": 3,
    "plan": {"runs": {"real": {"pt_1": {"fingerprint": "a1"}, "rit_1": {"fingerprint": "b2"}}}},
}


def results(**tables: pd.DataFrame) -> dict[str, TaskResults]:
    return {"real": TaskResults("real", {}, tables), "cross_domain": TaskResults("cross_domain")}


def test_durations_are_summed_by_task() -> None:
    """Two runs of an hour and a minute, one of 3.4 s; a task without timings is left out."""
    timings = pd.DataFrame({"task": "real", "run": ["a", "b"], "seconds": [3600.0, 63.4]})
    assert provenance(STUDY, results(timings=timings))["durations of the trainings"] == {
        "real": "1 h 1 min 3 s for 2 runs"
    }
    one = timings.iloc[:1].assign(seconds=0.2)
    assert provenance(STUDY, results(timings=one))["durations of the trainings"] == {"real": "0 s for 1 run"}
    assert provenance(STUDY, results())["durations of the trainings"] == {}


def test_images_and_weights_are_told_by_digests() -> None:
    """Those of the splits' table, cut to 16 digits, and the fingerprints of the plan."""
    splits = pd.DataFrame({"part": ["train", "test"], "digest": ["0" * 64, "1" * 64]})
    found = provenance(STUDY, results(splits=splits))
    assert found["digests of the images"] == {"real, train": "0" * 16, "real, test": "1" * 16}
    assert found["fingerprints of the runs"] == {"real.pt_1": "a1", "real.rit_1": "b2"}


def test_the_hardware_is_named() -> None:
    """Processor, cores and memory, each with a value."""
    found = provenance(STUDY, results())["hardware"]
    assert {"system", "processor", "cores", "memory"} <= found.keys()
    assert all(found.values())


def test_another_plan_has_another_digest() -> None:
    digests = {provenance(STUDY | {"seed": seed}, results())["plan_digest"] for seed in (1, 2, 1)}
    assert len(digests) == 2
