"""Two other measures of alike features, from the sums that CKA keeps: do they order pairs of models as CKA does?"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
from torch import Tensor

from transferscope.analysis.cca import cca_of_moments, whitening
from transferscope.analysis.cka_models import LayerSimilarity
from transferscope.analysis.layer_pairs import LayerComparison, UnitPair, unit_table
from transferscope.analysis.procrustes import procrustes_of_moments


def second_opinion(similarity: LayerSimilarity, comparison: LayerComparison) -> pd.DataFrame:
    """SVCCA (`mean_squared_cca`) and orthogonal Procrustes similarity of every pair of layers of a comparison.

    The comparison must have an exact estimator. Returns a row per pair of models, pair of layers and measure:
    checkpoint_a, checkpoint_b, layer, layer_b, features, num_examples, measure, value, permuted. Neither measure is
    debiased, so read a value against `permuted`, the same of the second model's examples in another order. Layers that
    have no CKA (`LayerSimilarity.undefined`) have NaN.
    """
    pairs = similarity.unit_pairs(comparison)
    undefined = set(similarity.undefined(comparison))
    units = {unit for pair in pairs for unit in pair} - undefined
    own = {unit: similarity.sums[unit, unit].cross_moments() for unit in units}
    white = {unit: whitening(moments, f"features {unit}") for unit, moments in own.items()}
    table = unit_table(pairs, similarity.extractors).assign(num_examples=similarity.num_examples)
    measures: dict[str, Callable[[UnitPair, Tensor], float]] = {
        "SVCCA": lambda pair, cross: cca_of_moments(cross, *(white[unit] for unit in pair)),
        "Procrustes": lambda pair, cross: procrustes_of_moments(cross, *(own[unit].trace() for unit in pair)),
    }
    tables = []
    for name, measure in measures.items():
        value, permuted = (
            [math.nan if undefined & {*pair} else measure(pair, sums[pair].cross_moments()) for pair in pairs]
            for sums in (similarity.sums, similarity.permuted_sums)
        )
        tables.append(table.assign(measure=name, value=value, permuted=permuted))
    return pd.concat(tables, ignore_index=True)
