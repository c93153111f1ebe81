"""Matrices of pairs of models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from transferscope.plots import matrices
from transferscope.system.errors import UserError


def cells(figure: object) -> np.ndarray:
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("draw", "value"),
    [
        (matrices.disagreement_matrix, (20 + 3) / 1000),
        (matrices.distance_matrix, 2.03),
        (matrices.cka_matrix, 1 / 5),
        (matrices.barrier_matrix, 0.03),
    ],
)
def test_a_cell_is_the_number_of_its_pair_in_both_directions(
    draw: object, value: float, drawn: SimpleNamespace
) -> None:
    """Of the second and the third of four models; nothing is said of a model and itself."""
    shown = cells(draw(drawn.file_pairs(4), drawn.file_names(4)))  # type: ignore[operator]
    assert shown[1, 2] == shown[2, 1] == pytest.approx(value)
    assert np.isnan(np.diag(shown)).all()
    assert np.isfinite(shown).sum() == 12


def test_pairs_that_were_not_measured_stay_empty(drawn: SimpleNamespace) -> None:
    """A series with each model next to the one before it gives two diagonals."""
    shown = cells(matrices.distance_matrix(drawn.file_pairs(5, [(a, a + 1) for a in range(1, 5)]), drawn.file_names(5)))
    assert np.isfinite(shown).tolist() == [[abs(a - b) == 1 for a in range(5)] for b in range(5)]


def test_barriers_are_those_of_the_main_metric(drawn: SimpleNamespace) -> None:
    """Not those of the loss, nor of networks with BatchNorm whose statistics are left as they are."""
    table = drawn.file_pairs(3)
    others = [table.assign(metric=name, barrier=9.0) for name in ("loss", "naive_accuracy", "naive_loss")]
    shown = cells(matrices.barrier_matrix(pd.concat([table, *others]), drawn.file_names(3)))
    assert np.nanmax(shown) < 1
    own = table.iloc[[0]].assign(checkpoint_b=table["checkpoint_a"].iloc[0])
    assert np.isnan(np.diag(cells(matrices.cka_matrix(pd.concat([table, own]), drawn.file_names(3))))).all()


def test_findings_are_counted_together(drawn: SimpleNamespace) -> None:
    """Of several findings the sum of the counts over the sum of the images."""
    table = pd.concat(
        [drawn.file_pairs(3).assign(class_name=name, only_b_correct=count) for name, count in (("x", 0), ("y", 40))]
    )
    assert cells(matrices.disagreement_matrix(table, drawn.file_names(3)))[0, 1] == pytest.approx(
        (10 + 0 + 10 + 40) / 2000
    )


def test_of_many_models_the_first_twenty_are_shown(drawn: SimpleNamespace) -> None:
    """And the axis says so."""
    figure = matrices.barrier_matrix(drawn.file_pairs(22), drawn.file_names(22))
    assert cells(figure).shape == (20, 20)
    assert "the first 20 of 22" in figure.axes[0].get_xlabel()


def test_an_empty_table_and_a_missing_column_are_answered(drawn: SimpleNamespace) -> None:
    """As every figure does."""
    empty = matrices.cka_matrix(drawn.file_pairs(3).iloc[:0], drawn.file_names(3))
    assert "to show" in empty.axes[0].texts[0].get_text()
    with pytest.raises(UserError, match="lacks the column"):
        matrices.cka_matrix(pd.DataFrame({"task": ["photos"]}), drawn.file_names(3))
