"""l2 distances of state_dicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.distance import distances_from, l2_distance, module_distances
from transferscope.analysis.states import TensorKinds
from transferscope.models.modules import find_modules
from transferscope.models.zoo import build_model
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


def test_statistics_have_a_column_of_their_own_and_counters_none():
    """Running means and variances are no weights: the distance is that of weights alone, by name and by model."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    state_a = {key: value.clone() for key, value in model.state_dict().items()}
    state_b = {key: value.clone() for key, value in state_a.items()}
    state_b["1.num_batches_tracked"] += 100
    state_b["1.running_mean"] += 2
    state_b["1.running_var"] += 1
    state_b["0.weight"][0, 0] += 0.5
    for kinds in (None, TensorKinds.of_model(model)):
        assert l2_distance(state_a, state_b, kinds=kinds) == pytest.approx(0.5)
        table = module_distances(state_a, state_b, {"all_of_it": tuple(state_a)}, kinds=kinds).set_index("module")
        assert table.loc["all_of_it", "l2"] == pytest.approx(0.5)
        assert table.loc["all_of_it", "statistics_l2"] == pytest.approx(15**0.5)
        assert table.loc["all", ["num_parameters", "num_statistics"]].tolist() == [15, 6]
        norm = (state_a["0.weight"].double().square().sum() + 3).sqrt().item()
        assert table.loc["all", "relative"] == pytest.approx(0.5 / norm)


def test_the_classifier_of_a_fine_tuned_batchnorm_network_moved_most():
    """ResNet-18 whose statistics run away while its classifier learns: weights say fc, the statistics do not."""
    model = build_model("resnet18", 5, seed=0)
    state_a = {key: value.clone() for key, value in model.state_dict().items()}
    state_b = {key: value + 9.0 if "running" in key else value.clone() for key, value in state_a.items()}
    state_b["fc.weight"] += 0.02
    state_b["layer4.1.conv2.weight"] += 1e-5
    table = module_distances(state_a, state_b, find_modules(model), kinds=TensorKinds.of_model(model))
    modules = table[~table["module"].isin(["all", "sum"])].set_index("module")
    assert modules["l2"].idxmax() == modules["relative"].idxmax() == "fc"
    assert modules["statistics_l2"].idxmax() == "layer4.0"
    assert table.set_index("module").loc["all", "l2"] < 2


def test_what_two_layers_share_counts_once_and_constants_do_not_count():
    """A tied weight is one tensor; an index is no weight, and a constant buffer of floats is none either."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    model.register_buffer("relative_position_index", torch.arange(4))
    model.register_buffer("anchors", torch.ones(7))
    state_a = {key: value.clone() for key, value in model.state_dict().items()}
    state_b = {key: value + 1 if key.endswith("weight") else value for key, value in state_a.items()}
    kinds = TensorKinds.of_model(model)
    assert kinds.weights == {"0.weight"}
    assert l2_distance(state_a, state_b, kinds=kinds) == pytest.approx(2)
    table = module_distances(state_a, state_b, find_modules(model), kinds=kinds).set_index("module")
    assert table.loc["all", ["l2", "num_parameters", "statistics_l2"]].tolist() == pytest.approx([2, 4, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_weights_are_at_distance_exactly_0_in_every_precision(dtype: torch.dtype):
    """Not nearly 0; and precisions can be mixed."""
    state = {"w": torch.randn(100, generator=torch.Generator().manual_seed(1)).to(dtype)}
    assert l2_distance(state, {"w": state["w"].clone()}) == 0
    assert l2_distance(state, {"w": state["w"].double()}) == 0


def test_complex_weights_are_refused_by_name():
    """Half of a complex number is no distance."""
    with pytest.raises(UserError, match=r"complex tensors.*filter"):
        l2_distance({"filter": torch.ones(2, dtype=torch.complex64)}, {"filter": torch.ones(2, dtype=torch.complex64)})


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
