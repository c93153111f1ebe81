"""l2 distances between weights, whole and module by module (appendix B.3, Tables 2 and 8, Figures 10 and 11).

The paper does not say which norm its tables hold, and Tables 2 and 8 do not agree with each other, so three numbers are
given: the global l2, its square, and the sum of the modules' l2.

Distances are those of weights alone. BatchNorm's running means and variances follow from weights and images, and lie
orders of magnitude farther apart than weights do, so they stand in columns of their own; counters never count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from torch import Tensor

from transferscope.analysis.states import State, TensorKinds, check_modules, check_same_tensors


def l2_distance(state_a: State, state_b: State, *, kinds: TensorKinds | None = None) -> float:
    """Euclidean distance between the weights of two state_dicts, summed in float64.

    kinds: which tensors are weights (`TensorKinds.of_model`); by their names where it is not given. Symmetric, exactly
    0 for equal weights. Raises UserError listing the tensors that differ in name or shape.
    """
    check_same_tensors(state_a, state_b)
    weights = (kinds or TensorKinds.of_state(state_a)).weights
    return math.fsum(_squared_difference(state_a[key], state_b[key]) for key in state_a if key in weights) ** 0.5


def module_distances(
    state_a: State, state_b: State, modules: Mapping[str, Iterable[str]], *, kinds: TensorKinds | None = None
) -> pd.DataFrame:
    """Distance of every module, then rows "all" (all modules together) and "sum" (sum of the modules' l2).

    modules: name -> keys of the state_dict. Only these tensors are compared, so a classifier of another size can be
    left out. kinds: as in `l2_distance`. Columns: module; of the weights l2, squared (l2 squared), relative (l2 over
    the norm of the same weights in `state_a`, so let `state_a` be the initialisation where there is one; infinite where
    that norm is 0, NaN for 0 over 0) and num_parameters; statistics_l2 and num_statistics of the running statistics, 0
    where there are none. In row "sum" squared is that of the sum, and relative is over the sum of the modules' norms.

    Raises UserError listing the tensors that differ in name or shape.
    """
    check_modules(modules, state_a)
    check_modules(modules, state_b)
    chosen = {key for keys in modules.values() for key in keys}
    check_same_tensors({k: state_a[k] for k in state_a if k in chosen}, {k: state_b[k] for k in state_b if k in chosen})
    kinds = kinds or TensorKinds.of_state(state_a)
    rows = [_sums(module, tuple(keys), state_a, state_b, kinds) for module, keys in modules.items()]
    return pd.DataFrame([_table_row(row) for row in (*rows, _whole(rows), _sum_over_modules(rows))])


def distances_from(
    reference: State,
    states: Iterable[tuple[int, State]],
    modules: Mapping[str, Iterable[str]],
    *,
    kinds: TensorKinds | None = None,
) -> pd.DataFrame:
    """`module_distances` of a reference to the weights at several epochs, read one by one: the distance travelled.

    states: (epoch, state_dict) pairs. Returns the columns of `module_distances` behind a column epoch.
    """
    tables = []
    for epoch, state in states:
        table = module_distances(reference, state, modules, kinds=kinds)
        table.insert(0, "epoch", epoch)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


Row = dict[str, Any]


def _sums(module: str, keys: tuple[str, ...], state_a: State, state_b: State, kinds: TensorKinds) -> Row:
    weights = [key for key in keys if key in kinds.weights]
    statistics = [key for key in keys if key in kinds.statistics]
    return {
        "module": module,
        "squared": math.fsum(_squared_difference(state_a[key], state_b[key]) for key in weights),
        "squared_norm": math.fsum(_squared_norm(state_a[key]) for key in weights),
        "num_parameters": sum(state_a[key].numel() for key in weights),
        "statistics_l2": math.fsum(_squared_difference(state_a[key], state_b[key]) for key in statistics) ** 0.5,
        "num_statistics": sum(state_a[key].numel() for key in statistics),
    }


def _whole(rows: list[Row]) -> Row:
    return {
        "module": "all",
        **{key: math.fsum(_values(rows, key)) for key in ("squared", "squared_norm")},
        "num_parameters": sum(_values(rows, "num_parameters")),
        "statistics_l2": math.fsum(value**2 for value in _values(rows, "statistics_l2")) ** 0.5,
        "num_statistics": sum(_values(rows, "num_statistics")),
    }


def _sum_over_modules(rows: list[Row]) -> Row:
    squares = {key: math.fsum(value**0.5 for value in _values(rows, key)) ** 2 for key in ("squared", "squared_norm")}
    return _whole(rows) | {
        "module": "sum",
        **squares,
        "statistics_l2": math.fsum(_values(rows, "statistics_l2")),
    }


def _values(rows: list[Row], key: str) -> list[float]:
    return [row[key] for row in rows]


def _table_row(sums: Row) -> Row:
    l2, norm = sums["squared"] ** 0.5, sums["squared_norm"] ** 0.5
    relative = l2 / norm if norm else (float("inf") if l2 else float("nan"))
    first = {"module": sums["module"], "l2": l2, "squared": sums["squared"], "relative": relative}
    return first | {key: sums[key] for key in ("num_parameters", "statistics_l2", "num_statistics")}


def _squared_difference(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach().to(a.device).double()).square().sum())


def _squared_norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().sum())
