"""Our tables beside the paper's: a grid of all tasks or one a task, numbers as means with their range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from transferscope.report import formats
from transferscope.report.effects import one_cka
from transferscope.report.evidence import CROSS_DOMAIN, Evidence, full_name, last_epochs, main_metric
from transferscope.report.grid import Grid, from_table
from transferscope.report.landscape_effects import place
from transferscope.report.published import TABLE_3, TABLE_4, TABLE_5
from transferscope.report.results import TaskResults

Results = Mapping[str, TaskResults]


def none(results: Results) -> list[Grid]:
    """No tables."""
    return []


def each(results: Results, name: str) -> list[tuple[str, pd.DataFrame]]:
    """Tasks that have a table with rows."""
    found = {task: result.tables.get(name) for task, result in results.items() if task != CROSS_DOMAIN}
    return [(task, table) for task, table in found.items() if table is not None and not table.empty]


def spread(values: pd.Series, say: Callable[[float], str]) -> str:
    """Mean, and where there are several values their range: `0.81 (0.79 to 0.83)`."""
    values = values.astype(float).dropna()
    if values.empty:
        return formats.MISSING
    if len(values) == 1 or say(values.min()) == say(values.max()):
        return say(float(values.mean()))
    return f"{say(float(values.mean()))} ({say(float(values.min()))} to {say(float(values.max()))})"


def final_metrics(results: Results) -> list[Grid]:
    """Final test metric and optimization speed by task and kind."""
    runs = Evidence({}, results).runs
    rows = []
    for (task, label), part in runs.groupby(["task", "label"], sort=False):
        metric = str(part["metric"].iloc[0])
        say = _score(metric)
        rates = ", ".join(f"{rate:g}" for rate in sorted(part["lr"].unique()))
        rows.append((
            str(task), str(label), rates, str(len(part)), metric.upper() if metric == "auc" else metric,
            spread(part["score"], say), spread(part["speed"], say),
        ))  # fmt: skip
    columns = ("task", "kind", "lr", "runs", "metric", "final, test", "optimization speed")
    note = "Mean (smallest to largest run). Optimization speed: train metric averaged over the epochs."
    return _if_any("Ours: final test metric and speed", columns, rows, note, "<task>.runs.table")


def runs(results: Results) -> list[Grid]:
    """Every run with its status; those that diverged or did not learn are set apart."""
    found = []
    for task, table in each(results, "runs"):
        table = _in_its_metric(table)
        leading = [name for name in ("run", "label", "status", "learned", "best_epoch") if name in table.columns]
        skipped = {"task", "kind", *leading}
        rest = [name for name in table.columns if name not in skipped and table[name].notna().any() and "/" not in name]
        grid = from_table(f"Runs on {task}", table, [*leading, *rest], entry=f"{task}.runs.table")
        marks = {
            index: "bad"
            for index, (_, row) in enumerate(table.iterrows())
            if row.get("status") == "diverged" or row.get("learned") in (False, "False")
        }
        found.append(Grid(grid.caption, grid.columns, grid.rows, grid.note, grid.entry, 4, marks))
    return found


def _in_its_metric(table: pd.DataFrame) -> pd.DataFrame:
    """Runs with `final_test` and the like as text: percent or AUC, as the task is judged."""
    if "metric" not in table.columns:
        return table
    names = [
        name for name in ("final_train", "final_test", "best_test", "optimization_speed", "chance") if name in table
    ]
    say = _score(str(table["metric"].iloc[0]))
    return table.assign(**{name: [say(float(value)) for value in table[name]] for name in names})


MISTAKES = (
    "pair_kind", "checkpoint_a", "checkpoint_b", "class_name", "accuracy_a", "accuracy_b", "only_a_correct",
    "only_b_correct", "common_mistakes", "uncommon_ratio_a", "uncommon_ratio_b", "kappa", "mcnemar_p",
)  # fmt: skip


def mistakes(results: Results) -> list[Grid]:
    """One grid a task: every pair; for multi-label tasks the sum over classes, with the mean of the ratios."""
    found = []
    for task, table in each(results, "mistakes"):
        rows = table[table["class_name"] == "all"]
        columns = [name for name in MISTAKES if name != "class_name"]
        note = ""
        if rows.empty:
            counts = ["only_a_correct", "only_b_correct", "common_mistakes"]
            means = ["accuracy_a", "accuracy_b", "uncommon_ratio_a", "uncommon_ratio_b", "kappa"]
            how = dict.fromkeys(counts, "sum") | {name: "mean" for name in means if name in table.columns}
            keys = ["pair_kind", "checkpoint_a", "checkpoint_b"]
            rows = table.groupby(keys, sort=False).agg(how).reset_index()
            note = "Counts are summed over the classes, ratios are means over them."
        found.append(from_table(f"Ours: {task}", rows, columns, entry=f"{task}.mistakes.table", note=note))
    return found


def mistakes_per_class(results: Results) -> list[Grid]:
    """Tables 3 to 5 and ours: every class of every pair, where classes are judged one by one."""
    found = [TABLE_3, TABLE_4, TABLE_5]
    for task, table in each(results, "mistakes"):
        rows = table[table["class_name"] != "all"]
        if not rows.empty:
            found.append(from_table(f"{task}, class by class", rows, MISTAKES, entry=f"{task}.mistakes.table"))
    return found


def class_size_correlation(results: Results) -> list[Grid]:
    """Pearson correlation of each run."""
    tables = [table.assign(task=task) for task, table in each(results, "class_size_correlation")]
    if not tables:
        return []
    columns = ("task", "run", "pearson_r", "p_value", "num_classes")
    table = pd.concat(tables, ignore_index=True)
    return [
        from_table("Ours: correlation with class size", table, columns, entry="<task>.class_size_correlation.table")
    ]


def class_accuracy(results: Results) -> list[Grid]:
    """Accuracy of every class and run."""
    columns = ("run", "class_name", "class_size", "num_test", "accuracy")
    return [
        from_table(f"{task}, class by class", table, columns, entry=f"{task}.class_accuracy.table")
        for task, table in each(results, "class_accuracy")
    ]


def cka(results: Results) -> list[Grid]:
    """Pair kinds by layers, as Tables 1 and 7, for one sort of features and one estimator."""
    return [_cka_grid(f"Ours: {task}", task, one_cka(table)) for task, table in each(results, "cka")]


def cka_other(results: Results) -> list[Grid]:
    """The other sorts of features and estimators."""
    found = []
    for task, table in each(results, "cka"):
        shown = one_cka(table)
        for (features, estimator), part in table.drop(shown.index).groupby(["features", "estimator"], sort=False):
            found.append(_cka_grid(f"{task}, {features}, {estimator}", task, part))
    return found


def _cka_grid(caption: str, task: str, table: pd.DataFrame) -> Grid:
    layers = list(dict.fromkeys(table["layer"].astype(str)))
    rows = []
    for kind, part in table.groupby("pair_kind", sort=False):
        cells = [spread(part[part["layer"].astype(str) == layer]["cka"], formats.decimals) for layer in layers]
        rows.append((str(kind), *cells))
    first = table.iloc[0]
    note = (
        f"{first['features']} features, {first['estimator']} estimator, {int(first['num_examples']):,} examples; "
        "mean (range over pairs)."
    )
    return Grid(caption, ("pair", *layers), tuple(rows), note, f"{task}.cka.table")


def distances_between(results: Results) -> list[Grid]:
    """Global distances of pairs of models, mean and range over pairs."""
    return _distances(results, "Ours: distance between two models", initial=False)


def distances_travelled(results: Results) -> list[Grid]:
    """Global distances to the initial weights."""
    return _distances(results, "Ours: distance to the initial weights", initial=True)


def _distances(results: Results, caption: str, *, initial: bool) -> list[Grid]:
    rows = []
    for task, table in each(results, "distances"):
        table = table[~table["pair_kind"].str.endswith("on the way")]
        table = table[table["pair_kind"].str.endswith("& init") == initial]
        for kind, part in table.groupby("pair_kind", sort=False):
            whole, summed = part[part["module"] == "all"], part[part["module"] == "sum"]
            squared = whole["squared"] if "squared" in whole.columns else whole["l2"] ** 2
            rows.append((
                task, str(kind), str(len(whole)), spread(whole["l2"], _number), spread(summed["l2"], _number),
                spread(squared, _number), spread(whole["relative"], _number) if "relative" in whole.columns else "",
            ))  # fmt: skip
    columns = ("task", "pair", "pairs", "l2", "sum over modules", "l2 squared", "relative")
    return _if_any(caption, columns, rows, "Mean (range).", "<task>.distances.table")


def distances_per_module(results: Results) -> list[Grid]:
    """l2 of every module, mean over pairs: modules by pair kinds."""
    found = []
    for task, table in each(results, "distances"):
        rows = table[~table["module"].isin(("all", "sum")) & ~table["pair_kind"].str.endswith("on the way")]
        found.append(
            _pivot(f"{task}, module by module (l2)", rows, "module", "pair_kind", "l2", f"{task}.distances.table")
        )
    return found


def barriers(results: Results) -> list[Grid]:
    """Barrier on the test set in the main metric, by task and kind of pair."""
    rows = []
    for task, table in each(results, "barriers"):
        part = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
        rows += [(task, *row) for row in _barrier_rows(part, "pair_kind")]
    columns = ("task", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return _if_any("Ours: barriers, test", columns, rows, "Mean (range over pairs).", "<task>.barriers.table")


def _barrier_rows(table: pd.DataFrame, key: str) -> list[tuple[str, ...]]:
    return [
        (
            str(kind),
            str(len(part)),
            str(part["metric"].iloc[0]),
            spread(part["barrier"], formats.points),
            spread(part["midpoint_gain"], formats.points),
        )
        for kind, part in table.groupby(key, sort=False)
    ]


BARRIERS = (
    "scenario", "pair_kind", "checkpoint_a", "checkpoint_b", "split", "metric", "barrier", "barrier_alpha",
    "midpoint_gain",
)  # fmt: skip


def barriers_all(results: Results) -> list[Grid]:
    """Every pair, split and metric."""
    note = "Accuracy and AUC are fractions, the loss is in nats per example."
    return [
        from_table(f"{task}, every pair", table, BARRIERS, entry=f"{task}.barriers.table", note=note)
        for task, table in each(results, "barriers")
    ]


def extrapolation(results: Results) -> list[Grid]:
    """Test metric at the ends and one step beyond, mean over pairs."""
    found = []
    for task, table in each(results, "interpolation"):
        rows = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
        if rows["alpha"].min() < 0:
            alphas = sorted({float(rows["alpha"].min()), -0.5, 0.0, 0.5, 1.0, 1.5, float(rows["alpha"].max())})
            rows = rows.assign(alpha=rows["alpha"].round(6))
            rows = rows[rows["alpha"].isin(alphas)]
            say = _score(main_metric(table))
            entry = f"{task}.interpolation.table"
            found.append(_pivot(f"Ours: {task}, test metric by alpha", rows, "pair_kind", "alpha", "value", entry, say))
    return found


def cross_domain(results: Results) -> list[Grid]:
    """Barriers and gains of scenarios between single domains."""
    return _scenarios(results, range(19, 24), "Ours: between two domains, test")


def unions(results: Results) -> list[Grid]:
    """Barriers and gains of all other scenarios."""
    return _scenarios(results, range(24, 1000), "Ours: with combined domains, test")


def _scenarios(results: Results, numbers: range, caption: str) -> list[Grid]:
    table = results[CROSS_DOMAIN].tables.get("barriers") if CROSS_DOMAIN in results else None
    rows: list[tuple[str, ...]] = []
    if table is None:
        return []
    table = table[(table["split"] == "test") & (table["metric"] == main_metric(table))]
    for scenario, part in table.groupby("scenario", sort=False):
        if figure_number(str(scenario)) in numbers:
            rows += [(place(scenario, part), *row) for row in _barrier_rows(part, "pair_kind")]
    columns = ("scenario", "pair", "curves", "metric", "barrier (points)", "gain half-way (points)")
    return _if_any(caption, columns, rows, "", f"{CROSS_DOMAIN}.barriers.table")


def figure_number(name: str) -> int:
    """`figure_19` -> 19; a name without a number is put with the last figures."""
    digits = "".join(letter for letter in name if letter.isdigit())
    return int(digits) if digits else 999


def module_criticality(results: Results) -> list[Grid]:
    """Criticality of every module, a column a run and path."""
    found = []
    for task, table in each(results, "module_criticality"):
        rows = table[table["epsilon"] == table["epsilon"].min()].assign(
            column=lambda rows: (
                rows["run"].astype(str) + ", " + rows["path"].astype(str) + " path to " + rows["end"].astype(str)
            )
        )
        grid = _pivot(
            f"Ours: {task}, criticality μ", rows, "module", "column", "mu", f"{task}.module_criticality.table"
        )
        found.append(grid)
    return found


def rewinding(results: Results) -> list[Grid]:
    """Test metric with each module set back to the first epoch, a column a run."""
    found = []
    for task, table in each(results, "rewinding"):
        metric = main_metric(table)
        rows = table[(table["split"] == "test") & (table["metric"] == metric)]
        earliest = rows[rows["module"] != "none"]["epoch"].min()
        rows = rows[(rows["module"] == "none") | (rows["epoch"] == earliest)].replace(
            {"module": {"none": "nothing set back"}}
        )
        entry = f"{task}.rewinding.table"
        found.append(
            _pivot(
                f"Ours: {task}, test {metric.upper() if metric == 'auc' else metric}",
                rows,
                "module",
                "run",
                "value",
                entry,
                _score(metric),
            )
        )
    return found


def counts_below(results: Results) -> list[Grid]:
    """Share of the whole network's singular values below each threshold, mean over runs."""
    rows = []
    columns: list[str] = []
    for task, label, part in _spectra(results, "all"):
        columns = [name for name in part.columns if name.startswith("count_below_")]
        shares = [spread(part[name] / part["num_values"], formats.percent) for name in columns]
        rows.append((task, label, f"{part['num_values'].iloc[0]:,.0f}", *shares))
    heads = ("task", "kind", "values", *(f"below {name.removeprefix('count_below_')}" for name in columns))
    return _if_any("Ours: share below a threshold", heads, rows, "Mean (range over runs).", "<task>.spectrum.table")


def norm_ratios(results: Results) -> list[Grid]:
    """The sum over layers, by task and kind."""
    rows = [(task, label, spread(part["ratio"], _number)) for task, label, part in _spectra(results, "sum")]
    columns = ("task", "kind", "Σ ‖W‖_F / ‖W‖_2")
    return _if_any("Ours: sum over layers", columns, rows, "Mean (range over runs).", "<task>.spectrum.table")


def norm_ratios_per_module(results: Results) -> list[Grid]:
    """The terms of the sum, mean over the runs of a kind."""
    found = []
    labels = Evidence({}, results).runs["label"]
    for task, table in each(results, "spectrum"):
        rows = last_epochs(table[~table["module"].isin(("all", "sum"))])
        rows = rows.assign(kind=[labels.get(full_name(task, run), run) for run in rows["run"]])
        found.append(_pivot(f"{task}, layer by layer", rows, "module", "kind", "ratio", f"{task}.spectrum.table"))
    return found


def _spectra(results: Results, row: str) -> list[tuple[str, str, pd.DataFrame]]:
    """Task, label and rows of the whole network ("all") or of the sum over its layers, at the last epoch."""
    labels = Evidence({}, results).runs["label"]
    found = []
    for task, table in each(results, "spectrum"):
        rows = last_epochs(table[table["module"] == row])
        rows = rows.assign(kind=[labels.get(full_name(task, run), run) for run in rows["run"]])
        found += [(task, str(kind), part) for kind, part in rows.groupby("kind", sort=False)]
    return found


def _pivot(
    caption: str, table: pd.DataFrame, row: str, column: str, value: str, entry: str,
    say: Callable[[float], str] | None = None,
) -> Grid:  # fmt: skip
    """Means of `value` by row and column, both in order of appearance."""
    say = say or _number
    heads = list(dict.fromkeys(table[column]))
    if pd.api.types.is_numeric_dtype(table[column]):
        heads = sorted(heads)
    means = table.groupby([row, column], sort=False)[value].mean()
    rows = tuple(
        (str(name), *(say(float(means.get((name, head), float("nan")))) for head in heads))
        for name in dict.fromkeys(table[row])
    )
    columns = (
        row.replace("pair_kind", "pair"),
        *(f"{head:g}" if isinstance(head, float) else str(head) for head in heads),
    )
    return Grid(caption, columns, rows, "", entry)


def _if_any(
    caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str, entry: str
) -> list[Grid]:
    """A grid whose first two columns are text, or none where there are no rows."""
    return [Grid(caption, columns, tuple(rows), note, entry, 2)] if rows else []


def _number(value: float) -> str:
    return formats.significant(value, 4)


def _score(metric: str) -> Callable[[float], str]:
    return lambda value: formats.score(value, metric)
