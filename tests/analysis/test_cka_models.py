"""CKA between the layers of several models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from transferscope.analysis.cca import mean_squared_cca
from transferscope.analysis.cka import ESTIMATORS, linear_cka
from transferscope.analysis.cka_models import LayerSimilarity, cka_between
from transferscope.analysis.features import FeatureExtractor
from transferscope.analysis.layer_pairs import LayerComparison
from transferscope.analysis.procrustes import procrustes_similarity
from transferscope.analysis.second_opinion import second_opinion
from transferscope.system.errors import UserError

LAYERS = {"conv1": "0", "conv2": "2"}
IMAGES = torch.randn(160, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def model(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3))


def extractors(names: str = "abc", features: str = "pooled") -> dict[str, FeatureExtractor]:
    return {name: FeatureExtractor(model(i), LAYERS, features=features) for i, name in enumerate(names)}


@pytest.mark.parametrize("batch_size", [160, 32, 53])
def test_pooled_values_are_exact(batch_size):
    """The table's value is linear_cka of all examples at once, however they are split (53 leaves one over)."""
    models = extractors()
    table = cka_between(models, IMAGES.split(batch_size))
    everything = {name: extractor(IMAGES) for name, extractor in models.items()}
    assert len(table) == 3 * 2
    assert (table["num_examples"] == 160).all()
    for row in table.itertuples():
        expected = linear_cka(everything[row.checkpoint_a][row.layer], everything[row.checkpoint_b][row.layer_b])
        assert row.cka == pytest.approx(expected, abs=1e-10)


def test_flattened_features_of_one_batch_are_exact():
    """With one batch the mini-batch estimator is linear_cka too, and its interval holds it."""
    models = extractors("ab", "flattened")
    table = cka_between(models, [IMAGES])
    everything = [extractor(IMAGES)["conv2"] for extractor in models.values()]
    assert table.set_index("layer").loc["conv2", "cka"] == pytest.approx(linear_cka(*everything), abs=1e-10)
    assert (table["estimator"] == "minibatch").all()
    assert (table["low"] < table["cka"]).all()
    assert (table["cka"] < table["high"]).all()


def count_batches(calls):
    """A hook that counts passes over the images; those by which layouts are found have two."""
    return lambda _model, inputs, _output: calls.append(1) if len(inputs[0]) > 2 else None


def test_each_model_runs_once_per_batch():
    """All pairs among m models cost m forward passes."""
    models = extractors("abcd")
    calls = []
    for extractor in models.values():
        extractor.model.register_forward_hook(count_batches(calls))
    table = cka_between(models, IMAGES.split(40), layer_pairs="all")
    assert len(calls) == 4 * 4
    assert len(table) == 6 * 4


def test_estimators_stand_side_by_side_with_their_own_floors():
    """Biased and debiased values are those of all examples at once; the biased floor is above the debiased one."""
    models = extractors("ab")
    table = cka_between(models, IMAGES.split(40), estimators=ESTIMATORS)
    everything = [extractor(IMAGES) for extractor in models.values()]
    for layer in LAYERS:
        rows = table[table["layer"] == layer].set_index("estimator")
        x, y = (features[layer] for features in everything)
        assert rows.loc["biased", "cka"] == pytest.approx(linear_cka(x, y, debiased=False), abs=1e-10)
        assert rows.loc["debiased", "cka"] == pytest.approx(linear_cka(x, y), abs=1e-10)
        assert rows.loc["biased", "permuted"] > rows.loc["debiased", "permuted"]
    one_batch = cka_between(models, [IMAGES], estimators=("debiased", "minibatch"))
    for column in ("cka", "permuted"):
        debiased, minibatch = (one_batch[one_batch["estimator"] == name][column] for name in ESTIMATORS[1:])
        np.testing.assert_allclose(debiased, minibatch, atol=1e-10)


def test_comparisons_share_the_forward_passes():
    """Two comparisons at once give what each gives alone, from one pass of each model."""
    models = extractors("ab")
    calls = []
    for extractor in models.values():
        extractor.model.register_forward_hook(count_batches(calls))
    same = LayerComparison((("a", "b"),), layers=("conv2",))
    heat_map = LayerComparison((("a", "b"),), layer_pairs="all", estimators=("minibatch",))
    similarity = LayerSimilarity(models, [same, heat_map])
    similarity.update_all(IMAGES.split(40))
    assert len(calls) == 2 * 4
    alone = cka_between(models, IMAGES.split(40), layer_pairs="all", estimators=["minibatch"])
    pd.testing.assert_frame_equal(similarity.cka(heat_map), alone)
    assert similarity.cka(same)["layer"].tolist() == ["conv2"]


def test_the_second_opinion_is_that_of_all_examples_at_once():
    """SVCCA and Procrustes from streamed sums equal those of the whole features, and a model is at 1 from itself."""
    models = extractors("ab")
    comparison = LayerComparison((("a", "b"), ("a", "a")))
    similarity = LayerSimilarity(models, [comparison])
    similarity.update_all(IMAGES.split(53))
    table = second_opinion(similarity, comparison)
    x, y = (extractor(IMAGES)["conv2"] for extractor in models.values())
    rows = table[(table["layer"] == "conv2") & (table["checkpoint_b"] == "b")].set_index("measure")
    assert rows.loc["SVCCA", "value"] == pytest.approx(mean_squared_cca(x, y), abs=1e-10)
    assert rows.loc["Procrustes", "value"] == pytest.approx(procrustes_similarity(x, y), abs=1e-10)
    assert (rows["permuted"] < rows["value"]).all()
    np.testing.assert_allclose(table[table["checkpoint_b"] == "a"]["value"], 1, atol=1e-9)


def test_controls_bound_the_values():
    """A model with itself gives 1 without an interval, permuted examples about 0, and intervals hold the value."""
    table = cka_between(extractors("ab"), IMAGES.split(16), pairs=[("a", "a"), ("a", "b")])
    itself, other = (table[table["checkpoint_b"] == name] for name in "ab")
    np.testing.assert_allclose(itself["cka"], 1, atol=1e-9)
    assert itself[["low", "high"]].isna().all().all()
    assert (table["permuted"].abs() < 0.15).all()
    assert (other["low"] <= other["cka"]).all()
    assert (other["cka"] <= other["high"]).all()


def test_the_table_is_the_same_for_the_same_seed():
    """Intervals and floor come from the seed alone."""
    first, second = (cka_between(extractors("ab"), IMAGES.split(16), seed=3) for _ in range(2))
    assert first.equals(second)


def test_heat_map_is_symmetric_for_one_model():
    """Layer x layer of a model with itself is symmetric with ones on the diagonal."""
    table = cka_between(extractors("a"), IMAGES.split(32), pairs=[("a", "a")], layer_pairs="all")
    matrix = table.pivot(index="layer", columns="layer_b", values="cka").to_numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-12)


def test_bad_input_is_named():
    """Unknown models, no common layer, constant features, too few examples, too many features."""
    models = extractors("ab")
    with pytest.raises(UserError, match="no model named c; there are: a, b"):
        cka_between(models, [IMAGES], pairs=[("a", "c")])
    with pytest.raises(UserError, match="no layer named layer9; there are: conv1, conv2"):
        LayerSimilarity(models, [LayerComparison((("a", "b"),), layers=("conv1", "layer9"))])
    other = FeatureExtractor(model(5), {"last": "2"})
    with pytest.raises(UserError, match="a and z have no layer name in common: conv1, conv2 and last"):
        cka_between({"a": models["a"], "z": other}, [IMAGES])
    with pytest.raises(UserError, match="3 examples: CKA needs at least 4"):
        cka_between(models, [IMAGES[:3]])
    with pytest.raises(UserError, match="0 examples"):
        cka_between(models, [])
    with pytest.raises(UserError, match="layer conv1 of a, conv1 of b, conv2 of a, conv2 of b"):
        cka_between(models, [torch.ones(8, 3, 8, 8)])
    with pytest.raises(UserError, match="not finite, or the same for all examples, in layer conv1 of a"):
        cka_between(models, [IMAGES * float("nan")])
    with pytest.raises(UserError, match="no pair of models"):
        cka_between(models, [IMAGES], pairs=[])
    with pytest.raises(UserError, match="expected 'same' or 'all'"):
        cka_between(models, [IMAGES], layer_pairs="some")
    wide = nn.Sequential(nn.Flatten(), nn.Linear(192, 5000))
    with pytest.raises(UserError, match="layer 1 of a has more than the 4096 features"):
        cka_between({name: FeatureExtractor(wide, ["1"]) for name in "ab"}, [IMAGES], estimators=["debiased"])
    with pytest.raises(UserError, match="estimator 'exact': expected one of biased, debiased, minibatch"):
        cka_between(models, [IMAGES], estimators=["exact"])
