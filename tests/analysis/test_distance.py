"""l2 distances of state_dicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.distance import distances_from, l2_distance, module_distances
from transferscope.system.errors import UserError

STATE_A = {"stem.weight": torch.tensor([[3.0, 0.0]]), "stem.bias": torch.tensor([0.0]), "fc.weight": torch.zeros(2)}
STATE_B = {
    "stem.weight": torch.tensor([[0.0, 4.0]]),
    "stem.bias": torch.tensor([0.0]),
    "fc.weight": torch.tensor([0.0, 12.0]),
}
MODULES = {"stem": ("stem.weight", "stem.bias"), "fc": ("fc.weight",)}


def test_hand_computed_distances():
    """Two modules at 5 and 12: globally 13, in sum 17."""
    assert l2_distance(STATE_A, STATE_B) == 13
    table = module_distances(STATE_A, STATE_B, MODULES).set_index("module")
    assert table["l2"].to_dict() == {"stem": 5, "fc": 12, "all": 13, "sum": 17}
    assert table["squared"].to_dict() == {"stem": 25, "fc": 144, "all": 169, "sum": 289}
    assert table["num_parameters"].to_dict() == {"stem": 3, "fc": 2, "all": 5, "sum": 5}
    assert table.loc["stem", "relative"] == pytest.approx(5 / 3)
    assert table.loc["fc", "relative"] == np.inf


def test_global_distance_is_that_of_the_concatenated_weights():
    """The "all" row is numpy's norm of the difference of all weights in one vector."""
    generator = torch.Generator().manual_seed(0)
    models = [
        {key: torch.randn(value.shape, generator=generator) for key, value in nn.Linear(7, 5).state_dict().items()}
        for _ in range(2)
    ]
    vectors = [torch.cat([t.flatten() for t in state.values()]).double().numpy() for state in models]
    expected = np.linalg.norm(vectors[0] - vectors[1])
    table = module_distances(*models, {"fc": ("weight", "bias")}).set_index("module")
    assert table.loc["all", "l2"] == pytest.approx(expected, rel=1e-12)
    assert l2_distance(*models) == pytest.approx(l2_distance(*reversed(models)), rel=1e-15)


def test_a_model_is_at_distance_0_from_itself():
    """Identity of indiscernibles; relative to a zero norm it is undefined."""
    assert l2_distance(STATE_A, STATE_A) == 0
    table = module_distances(STATE_A, STATE_A, MODULES).set_index("module")
    assert table.loc["stem", "relative"] == 0
    assert np.isnan(table.loc["fc", "relative"])


def test_half_precision_is_summed_in_float64():
    """The sum of many bfloat16 squares neither overflows nor stalls."""
    state_a = {"w": torch.zeros(100_000, dtype=torch.bfloat16)}
    state_b = {"w": torch.ones(100_000, dtype=torch.bfloat16)}
    assert l2_distance(state_a, state_b) == pytest.approx(100_000**0.5, rel=1e-12)


def test_counters_never_count_and_running_statistics_do_by_choice():
    """num_batches_tracked is no weight; running means and variances are left out on request."""
    norm = nn.BatchNorm2d(3)
    state_a = {key: value.clone() for key, value in norm.state_dict().items()}
    state_b = {key: value.clone() for key, value in norm.state_dict().items()}
    state_b["num_batches_tracked"] += 100
    assert l2_distance(state_a, state_b) == 0
    state_b["running_mean"] += 1
    assert l2_distance(state_a, state_b) == pytest.approx(3**0.5)
    assert l2_distance(state_a, state_b, running_statistics=False) == 0


def test_only_the_named_tensors_are_compared():
    """A classifier of another size is left out by naming the other modules."""
    other = {**STATE_B, "fc.weight": torch.zeros(9)}
    assert module_distances(STATE_A, other, {"stem": MODULES["stem"]})["l2"].tolist() == [5, 5, 5]


def test_distance_travelled_has_a_table_per_epoch():
    """One block of rows for each epoch, in the order given."""
    table = distances_from(STATE_A, [(0, STATE_A), (3, STATE_B)], MODULES)
    assert table[table["module"] == "all"].set_index("epoch")["l2"].to_dict() == {0: 0, 3: 13}


def test_mismatches_list_the_tensors():
    """Other names, other shapes, unknown keys of a module: each is named."""
    other = {"stem.weight": torch.zeros(5), "stem.bias": torch.zeros(1)}
    with pytest.raises(UserError, match=r"fc.weight only in a.*stem.weight \(1, 2\) in a but \(5,\) in b"):
        l2_distance(STATE_A, other)
    with pytest.raises(UserError, match=r"module fc: the checkpoint has no tensor fc\.weight"):
        module_distances(STATE_A, other, MODULES)
    with pytest.raises(UserError, match=r"stem\.weight"):
        module_distances(STATE_A, other, {"stem": MODULES["stem"]})


def test_models_with_other_classes_are_named():
    """Classifiers of 10 and of 12 classes: the tensors that differ are listed, with what to do."""
    small, large = (nn.ModuleDict({"fc": nn.Linear(4, classes)}).state_dict() for classes in (10, 12))
    with pytest.raises(
        UserError, match=r"fc\.weight \(10, 4\) in a but \(12, 4\) in b.*same model and number of classes"
    ):
        module_distances(small, large, {"fc": ("fc.weight", "fc.bias")})
