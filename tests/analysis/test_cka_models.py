"""CKA between the layers of several models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.analysis.cka import linear_cka
from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.features import FeatureExtractor
from transferscope.errors import UserError

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
    """With one batch the mini-batch estimator is linear_cka too, without an interval."""
    models = extractors("ab", "flattened")
    table = cka_between(models, [IMAGES])
    everything = [extractor(IMAGES)["conv2"] for extractor in models.values()]
    assert table.set_index("layer").loc["conv2", "cka"] == pytest.approx(linear_cka(*everything), abs=1e-10)
    assert (table["estimator"] == "minibatch").all()
    assert table["low"].isna().all()


def test_each_model_runs_once_per_batch():
    """All pairs among m models cost m forward passes."""
    models = extractors("abcd")
    calls = []
    for extractor in models.values():
        extractor.model.register_forward_hook(lambda *_: calls.append(1))
    table = cka_between(models, IMAGES.split(40), layer_pairs="all")
    assert len(calls) == 4 * 4
    assert len(table) == 6 * 4


def test_controls_bound_the_values():
    """A model with itself gives 1, permuted examples about 0, and intervals hold the value."""
    table = cka_between(extractors("ab"), IMAGES.split(16), pairs=[("a", "a"), ("a", "b")])
    itself = table[table["checkpoint_b"] == "a"]
    np.testing.assert_allclose(itself[["cka", "low", "high"]], 1, atol=1e-9)
    assert (table["permuted"].abs() < 0.15).all()
    assert (table["low"] <= table["cka"]).all()
    assert (table["cka"] <= table["high"]).all()


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
    other = FeatureExtractor(model(5), {"last": "2"})
    with pytest.raises(UserError, match="a and z have no layer name in common: conv1, conv2 and last"):
        cka_between({"a": models["a"], "z": other}, [IMAGES])
    with pytest.raises(UserError, match="3 examples: CKA needs at least 4"):
        cka_between(models, [IMAGES[:3]])
    with pytest.raises(UserError, match="0 examples"):
        cka_between(models, [])
    with pytest.raises(UserError, match="layer conv1 of a, conv1 of b, conv2 of a, conv2 of b"):
        cka_between(models, [torch.ones(8, 3, 8, 8)])
    with pytest.raises(UserError, match="no pair of models"):
        cka_between(models, [IMAGES], pairs=[])
    with pytest.raises(UserError, match="expected 'same' or 'all'"):
        cka_between(models, [IMAGES], layer_pairs="some")
    wide = nn.Sequential(nn.Flatten(), nn.Linear(192, 5000))
    with pytest.raises(UserError, match="layer 1 of a has 5000 features"):
        cka_between({name: FeatureExtractor(wide, ["1"]) for name in "ab"}, [IMAGES], estimator="exact")
