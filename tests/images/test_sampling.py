from __future__ import annotations

import numpy as np
import pytest

from transferscope.images.sampling import draw_by_example, draw_by_group, draw_subset, patient_of
from transferscope.system.errors import UserError


@pytest.mark.parametrize(
    ("num_examples", "begins"), [(120906, [31803, 23292, 29956]), (120750, [103085, 100466, 67761])]
)
def test_subset_is_the_studys(num_examples: int, begins: list[int]) -> None:
    """The subsets of real_train and quickdraw_train begin as those of the authors' code."""
    drawn = draw_subset(num_examples, 50_000)
    assert drawn[:3].tolist() == begins
    assert len(set(drawn.tolist())) == 50_000


def test_small_part_is_not_sampled() -> None:
    """Up to the limit all examples are taken, in their order."""
    assert draw_subset(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert draw_subset(5, None).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=r"limit is 0"):
        draw_subset(5, 0)


def test_chexpert_sample_is_the_studys() -> None:
    """Train and test begin as those of the authors' code on all 223,414 rows."""
    train, test = draw_by_example(223_414, (50_000, 50_000))
    assert train[:3].tolist() == [109867, 32890, 8709]
    assert test[:3].tolist() == [161840, 117840, 133142]
    assert not set(train.tolist()) & set(test.tolist())


def test_groups_stay_together() -> None:
    """No group is in two pieces, and the sizes are exact."""
    groups = np.random.default_rng(0).integers(0, 40, 300)
    pieces = draw_by_group(groups, (100, 90, 20))
    assert pieces is not None
    assert [len(piece) for piece in pieces] == [100, 90, 20]
    members = [set(groups[piece].tolist()) for piece in pieces]
    assert not members[0] & members[1]
    assert not members[1] & members[2]
    assert not members[0] & members[2]


def test_groups_that_do_not_suffice() -> None:
    """One group cannot serve two pieces; an empty piece takes nothing."""
    assert draw_by_group(np.zeros(10, dtype=int), (4, 4)) is None
    pieces = draw_by_group(np.array([0, 0, 1, 1]), (2, 2, 0))
    assert pieces is not None
    assert sorted(np.concatenate(pieces).tolist()) == [0, 1, 2, 3]


def test_patient_of_a_path() -> None:
    """The patient is the folder named so, wherever the root begins."""
    assert patient_of("CheXpert-v1.0/train/patient00012/study1/view1_frontal.jpg") == "patient00012"
    assert patient_of("patient3/view1.jpg") == "patient3"
    assert patient_of("train/study1/view1.jpg") is None
