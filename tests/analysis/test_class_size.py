"""Class accuracy against class size."""

from __future__ import annotations

import numpy as np
import pytest

from transferscope.analysis.class_size import class_accuracy, class_size_correlation
from transferscope.system.errors import UserError


def correlated(pearson_r: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors whose sample correlation is exactly `pearson_r`."""
    x, y = np.random.default_rng(0).standard_normal((2, n))
    x = (x - x.mean()) / np.linalg.norm(x - x.mean())
    y -= y.mean()
    y -= (y @ x) * x
    return x, pearson_r * x + np.sqrt(1 - pearson_r**2) * y / np.linalg.norm(y)


@pytest.mark.parametrize(("pearson_r", "printed"), [(0.36983, 1.26e-12), (0.32880, 3.84e-10)])
def test_p_values_of_appendix_b2(pearson_r, printed):
    """The printed p-values are the two-sided ones over 345 classes."""
    result = class_size_correlation(*correlated(pearson_r, 345))
    assert result.pearson_r == pytest.approx(pearson_r)
    assert result.p_value == pytest.approx(printed, rel=0.005)
    assert result.num_classes == 345


def test_accuracy_of_each_class_by_hand():
    """Right over all, class by class; a class without test examples has none."""
    table = class_accuracy([True, False, True], [0, 0, 2], [5, 6, 7], ["a", "b", "c"])
    assert table["num_test"].tolist() == [2, 0, 1]
    assert table["accuracy"].tolist()[0::2] == [0.5, 1.0]
    assert np.isnan(table["accuracy"][1])


def test_classes_without_test_examples_are_left_out():
    """A NaN accuracy does not count, and says so in num_classes."""
    full = class_size_correlation([1, 2, 3, 5], [0.1, 0.4, 0.2, 0.9])
    more = class_size_correlation([1, 2, 3, 4, 5], [0.1, 0.4, 0.2, np.nan, 0.9])
    assert full == more
    assert more.num_classes == 4


def test_equal_sizes_have_no_correlation():
    """NaN, not a warning, where sizes or accuracies do not vary or too few classes are left."""
    for sizes, accuracies in (([4, 4, 4], [0.1, 0.2, 0.3]), ([1, 2, 3], [1, 1, 1]), ([1, 2], [0.1, 0.2])):
        assert np.isnan(class_size_correlation(sizes, accuracies).pearson_r)


def test_bad_input_is_named():
    """Shapes and labels that do not fit are refused."""
    with pytest.raises(UserError, match="correct has shape"):
        class_accuracy([True], [0, 1], [1, 1], ["a", "b"])
    with pytest.raises(UserError, match="labels run from 0 to 2 but there are 2 classes"):
        class_accuracy([True, True], [0, 2], [1, 1], ["a", "b"])
    with pytest.raises(UserError, match="3 class sizes for 2 class names"):
        class_accuracy([True], [0], [1, 1, 1], ["a", "b"])
    with pytest.raises(UserError, match="expected \\(num_classes,\\)"):
        class_size_correlation([1, 2], [0.5])
