"""l2 distances between weights, whole and module by module (appendix B.3, Tables 2 and 8, Figures 10 and 11).

The paper does not say which norm its tables hold, and Tables 2 and 8 do not agree with each other, so three numbers are
given: the global l2, its square, and the sum of the modules' l2.

Whole-number buffers (a BatchNorm layer's num_batches_tracked) are no weights and never count. BatchNorm's running
means and variances do count, since they move the function as weights do; `running_statistics=False` leaves them out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from torch import Tensor

from transferscope.analysis.states import State, check_modules, check_same_tensors

RUNNING_STATISTICS = ("running_mean", "running_var")


def l2_distance(state_a: State, state_b: State, *, running_statistics: bool = True) -> float:
    """Euclidean distance between all floating-point tensors of two state_dicts, summed in float64.

    Symmetric, 0 for equal weights. Raises UserError listing the tensors that differ in name or shape.
    """
    check_same_tensors(state_a, state_b)
    keys = [key for key in state_a if _counts(key, state_a[key], running_statistics)]
    return math.fsum(_squared_difference(state_a[key], state_b[key]) for key in keys) ** 0.5


def module_distances(
    state_a: State,
    state_b: State,
    modules: Mapping[str, Iterable[str]],
    *,
    running_statistics: bool = True,
) -> pd.DataFrame:
    """Distance of every module, then rows "all" (all modules together) and "sum" (sum of the modules' l2).

    modules: name -> keys of the state_dict. Only these tensors are compared, so a classifier of another size can be
    left out. Columns: module, l2, squared (l2 squared), relative (l2 over the norm of the same tensors in `state_a`,
    so let `state_a` be the initialisation where there is one; infinite where that norm is 0, NaN for 0 over 0) and
    num_parameters. In row "sum" squared is that of the sum, and relative is over the sum of the modules' norms.

    Raises UserError listing the tensors that differ in name or shape.
    """
    check_modules(modules, state_a)
    check_modules(modules, state_b)
    chosen = {key for keys in modules.values() for key in keys}
    check_same_tensors({k: state_a[k] for k in state_a if k in chosen}, {k: state_b[k] for k in state_b if k in chosen})

    rows = []
    for module, keys in modules.items():
        counted = [key for key in keys if _counts(key, state_a[key], running_statistics)]
        squared = math.fsum(_squared_difference(state_a[key], state_b[key]) for key in counted)
        squared_norm = math.fsum(_squared_norm(state_a[key]) for key in counted)
        rows.append((module, squared, squared_norm, sum(state_a[key].numel() for key in counted)))

    num_parameters = sum(row[3] for row in rows)
    sum_of_l2 = math.fsum(row[1] ** 0.5 for row in rows)
    sum_of_norms = math.fsum(row[2] ** 0.5 for row in rows)
    rows.append(("all", math.fsum(row[1] for row in rows), math.fsum(row[2] for row in rows), num_parameters))
    rows.append(("sum", sum_of_l2**2, sum_of_norms**2, num_parameters))
    return pd.DataFrame([_table_row(*row) for row in rows])


def distances_from(
    reference: State,
    states: Iterable[tuple[int, State]],
    modules: Mapping[str, Iterable[str]],
    *,
    running_statistics: bool = True,
) -> pd.DataFrame:
    """`module_distances` of a reference to the weights at several epochs, read one by one: the distance travelled.

    states: (epoch, state_dict) pairs. Returns the columns of `module_distances` behind a column epoch.
    """
    tables = []
    for epoch, state in states:
        table = module_distances(reference, state, modules, running_statistics=running_statistics)
        table.insert(0, "epoch", epoch)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _table_row(module: str, squared: float, squared_norm: float, num_parameters: int) -> dict[str, object]:
    l2, norm = squared**0.5, squared_norm**0.5
    relative = l2 / norm if norm else (float("inf") if l2 else float("nan"))
    return {"module": module, "l2": l2, "squared": squared, "relative": relative, "num_parameters": num_parameters}


def _counts(key: str, tensor: Tensor, running_statistics: bool) -> bool:
    is_statistic = key.rpartition(".")[2] in RUNNING_STATISTICS
    return tensor.is_floating_point() and (running_statistics or not is_statistic)


def _squared_difference(a: Tensor, b: Tensor) -> float:
    difference = a.detach().to(torch.float64) - b.detach().to(device=a.device, dtype=torch.float64)
    return float(difference.square().sum())


def _squared_norm(tensor: Tensor) -> float:
    return float(tensor.detach().to(torch.float64).square().sum())
