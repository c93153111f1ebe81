"""Learning curves and optimization speed (appendix B.1), and the table of runs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from transferscope.claims.evidence import Evidence
from transferscope.experiment.names import RunName
from transferscope.experiment.run import printed_names
from transferscope.report import published
from transferscope.report.chapters.chapter import Chapter, Section, overview, spread
from transferscope.tables import formats
from transferscope.tables.grid import Grid, from_table

IN_ITS_METRIC = ("final_train", "final_test", "best_test", "optimization_speed", "chance")
"""Columns of the table of runs that are in the metric of the task."""
OF_FILES = {
    "metric": "metric", "final_test": "test", "final_train": "train", "chance": "chance",
    "final_test_loss": "test_loss", "final_train_loss": "train_loss",
}  # fmt: skip
"""Columns of that table that say something of a checkpoint file, by what they are there."""


def final_metrics(evidence: Evidence) -> list[Grid]:
    """Final test metric and optimization speed by task and kind."""
    ends = _ends(evidence)
    runs = pd.DataFrame([{"task": run.name.task, **vars(run)} for run in evidence.runs.values()])
    rows = []
    for (task, label), part in runs.groupby(["task", "label"], sort=False) if len(runs) else ():
        metric = str(part["metric"].iloc[0])
        rates = ", ".join(f"{rate:g}" for rate in sorted(part["lr"].dropna().unique())) or formats.MISSING
        whole = part[~part["diverged"]]
        count = f"{len(part)}" if len(whole) == len(part) else f"{len(part)}, {len(part) - len(whole)} diverged"
        shown = (spread(whole[name], formats.score(metric)) for name in ("score", "speed"))
        rise = spread(ends.reindex([str(name) for name in whole["name"]])["last_rise"], formats.points)
        rows.append((str(task), str(label), rates, count, formats.metric_name(metric), *shown, rise))
    columns = ("task", "kind", "lr", "runs", "metric", "final, test", "optimization speed", "rise at the end")
    note = (
        "Mean (smallest to largest run), without runs that diverged. Optimization speed: train metric averaged over "
        "the measured epochs. Rise at the end: points of the train metric per epoch since it was measured before."
    )
    if rising := [str(name) for name in ends.index[ends["still_rising"]]]:
        note += (
            f" Not trained to the end: {', '.join(rising)}. Where one of them is compared with a run that is, the "
            "difference is partly one of how far training had come; give more epochs or milestones."
        )
    return overview("Ours: final test metric and speed", columns, rows, note, "<task>.runs.table")


def _ends(evidence: Evidence) -> pd.DataFrame:
    """Rise of the train metric at the end of every run, by its full name."""
    tables = [
        table.assign(name=[str(RunName.parse(str(run), task)) for run in table["run"]])
        for task, table in evidence.each("runs")
    ]
    columns = ["name", "last_rise", "still_rising"]
    return pd.concat([pd.DataFrame(columns=columns), *(table[columns] for table in tables)]).set_index("name")


def runs(evidence: Evidence) -> list[Grid]:
    """Every run with its status, those that did not learn set apart; or every checkpoint file with its metrics."""
    if evidence.plan.compares_files:
        return _files(evidence)
    grids = []
    for task, table in evidence.each("runs"):
        leading = [name for name in ("run", "label", "status", "learned", "best_epoch") if name in table.columns]
        skipped = {"task", "kind", *leading}
        rest = [name for name in table.columns if name not in skipped and table[name].notna().any() and "/" not in name]
        metric = str(table["metric"].iloc[0]) if "metric" in table.columns else "accuracy"
        show = dict.fromkeys(IN_ITS_METRIC, formats.score(metric))
        grid = from_table(f"Runs on {task}", table, [*leading, *rest], entry=f"{task}.runs.table", show=show)
        failed = evidence.failures(RunName.parse(str(run), task) for run in table["run"])
        marks = {index: "bad" for index, run in enumerate(table["run"]) if f"{task}.{run}" in failed}
        grids.append(replace(grid, text_columns=4, marks=marks))
    return grids


def _files(evidence: Evidence) -> list[Grid]:
    """Metrics of every checkpoint file, which has no status and no epochs."""
    grids, names = [], printed_names(evidence.plan.runs.values())
    for task, table in evidence.each("runs"):
        shown = [own for name, own in OF_FILES.items() if table[name].notna().any()]
        if shown:
            full_names = [str(RunName.parse(str(run), task)) for run in table["run"]]
            table = table.rename(columns=OF_FILES).assign(model=[names[name] for name in full_names])
            show = dict.fromkeys(("test", "train", "chance"), formats.score(str(table["metric"].iloc[0])))
            columns = ["model", *shown]
            note = (
                "Test and train are the parts of the images that were given, or halves of them; no file says what a "
                "model was trained on. Statistics of BatchNorm as stored. Chance: that of the largest class, or .5."
            )
            grid = from_table(f"Models on {task}", table, columns, note=note, entry=f"{task}.runs.table", show=show)
            grids.append(replace(grid, text_columns=2))
    return grids


CHAPTER = Chapter(
    title="Learning curves",
    appendix="B.1",
    sections=(
        Section(
            id="figure_2",
            numbers="Figure 2",
            title="Learning curves and optimization speed",
            see="P-T should rise faster and end higher than RI-T; the smaller learning rate should suit P-T, the "
            "larger one RI-T.",
            analysis="training",
            figures=("learning_curves", "optimization_speed"),
            paper=(published.FIGURE_2,),
            tables=final_metrics,
            note="A star is the best epoch. Chosen on the test set, as in the paper, its metric is no estimate of "
            "performance; chosen on a validation part (`select_best_on`) it is one. Optimization speed is the "
            "metric on the training images, averaged over the epochs after which it was measured.",
        ),
    ),
)


def unlearned(evidence: Evidence) -> list[str]:
    """Runs that diverged or did not learn, by full name."""
    return [
        f"{name} ({'diverged' if facts.diverged else 'did not learn'})"
        for name, facts in evidence.runs.items()
        if not facts.learned
    ]
