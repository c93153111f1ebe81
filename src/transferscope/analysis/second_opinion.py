"""Two other measures of alike features, from the sums that CKA keeps: do they order pairs of models as CKA does?"""

from __future__ import annotations

import pandas as pd

from transferscope.analysis.cca import cca_of_moments
from transferscope.analysis.cka_models import Comparison, LayerSimilarity, Unit, UnitPair, unit_table
from transferscope.analysis.hsic import FeatureSums
from transferscope.analysis.procrustes import procrustes_of_moments

MEASURES = ("SVCCA", "Procrustes")


def second_opinion(similarity: LayerSimilarity, comparison: Comparison) -> pd.DataFrame:
    """SVCCA (`mean_squared_cca`) and orthogonal Procrustes similarity of every pair of layers of a comparison.

    The comparison must have an exact estimator. Returns a row per pair of models, pair of layers and measure:
    checkpoint_a, checkpoint_b, layer, layer_b, features, measure, num_examples, value, permuted. Neither measure is
    debiased, so read a value against `permuted`, the same of the second model's examples in another order.
    """
    pairs = similarity.unit_pairs(comparison)
    values = [_measures(similarity.sums, similarity.sums, pair) for pair in pairs]
    permuted = [_measures(similarity.permuted_sums, similarity.sums, pair) for pair in pairs]
    table = unit_table(pairs, similarity.extractors)
    tables = [
        table.assign(
            measure=measure,
            num_examples=similarity.num_examples,
            value=[row[measure] for row in values],
            permuted=[row[measure] for row in permuted],
        )
        for measure in MEASURES
    ]
    return pd.concat(tables, ignore_index=True)


def _measures(
    cross_sums: dict[UnitPair, FeatureSums], own_sums: dict[tuple[Unit, Unit], FeatureSums], pair: UnitPair
) -> dict[str, float]:
    cross = cross_sums[pair].cross_moments()
    own_x, own_y = (own_sums[unit, unit].cross_moments() for unit in pair)
    return {
        "SVCCA": cca_of_moments(cross, own_x, own_y),
        "Procrustes": procrustes_of_moments(cross, own_x.trace(), own_y.trace()),
    }
