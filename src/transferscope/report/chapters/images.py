"""Images: their splits, sizes of classes, and what was dropped."""

from __future__ import annotations

from transferscope.claims.evidence import CROSS_DOMAIN, Evidence, TaskResults
from transferscope.report.chapters.chapter import joined, overview, per_task
from transferscope.tables import formats
from transferscope.tables.grid import Grid

FIGURES = (
    "contact_sheet", "test_contact_sheet", "validation_contact_sheet", "shuffled_images", "class_sizes",
    "label_cooccurrence",
)  # fmt: skip
"""Contact sheets, images shuffled, sizes of the classes, and which findings come together."""
OF_STUDIES = ("shuffled_images",)
"""Figures that say nothing of checkpoint files."""

SPLITS = (
    "task", "part", "num_examples", "num_classes", "channels", "side", "source_width_median", "source_height_median",
    "num_dropped", "sampling",
)  # fmt: skip


def tasks(evidence: Evidence) -> Grid:
    """The tasks that the study ran on, a row each; of files those with images, where there are any."""
    plan = evidence.plan
    shown = [name for name in evidence.tasks if plan.has_images(name)] if plan.compares_files else []
    columns = ("task", "images", "layout", "labels", "classes", "train images", "test images", "runs")
    rows = tuple(_task(evidence, name) for name in shown or evidence.tasks)
    return Grid("Tasks", columns, rows, text_columns=4)


def _task(evidence: Evidence, name: str) -> tuple[str, ...]:
    options, result = evidence.plan.study.tasks[name], evidence.results[name]
    facts, runs = result.facts, evidence.table(name, "runs")
    images = "GENERATED (drawn)" if name in generated(evidence) else "real images"
    return (
        name,
        images if options.has_images else "no images",
        f"union of {' and '.join(options.union)}" if options.union else str(options.format),
        formats.MISSING
        if not options.has_images
        else "several labels an image"
        if facts.get("multi_label")
        else "one label an image",
        formats.cell(len(facts.get("class_names") or ()) or None),
        formats.cell(facts.get("num_train")),
        formats.cell(facts.get("num_test") or _num_test(result)),
        str(len(runs)) if "runs" in result.tables else formats.MISSING,
    )


def _num_test(result: TaskResults) -> int | None:
    """Test examples by the table of class sizes: every example is positive, negative or ignored for the first class."""
    table = result.tables.get("class_sizes")
    counts = ["count", "negatives", "ignored"]
    if table is None or not {"part", *counts} <= set(table.columns):
        return None
    rows = table[table["part"] == "test"]
    return int(rows[counts].iloc[0].sum()) if len(rows) else None


def generated(evidence: Evidence) -> set[str]:
    """Tasks whose images are drawn, and `CROSS_DOMAIN` where those of a scenario, or of all tasks, are."""
    plan, results = evidence.plan, evidence.results
    drawn = {name for name, result in results.items() if result.facts.get("generated")}
    drawn |= {task for task in plan.study.tasks if plan.is_generated(task)}
    drawn |= {task for task in plan.study.tasks if set(plan.study.tasks[task].union or ()) & drawn}
    landscape = plan.study.analyses.landscape
    scenarios = landscape.cross_domain if landscape else ()
    across = any(set(scenario.tasks) & drawn for scenario in scenarios) or set(plan.study.tasks) <= drawn
    return drawn | ({CROSS_DOMAIN} if across else set())


def tables(evidence: Evidence) -> list[Grid]:
    """Splits, patients and images in two parts, files dropped."""
    side = "Side: of the stored square in pixels; source: medians of the files in pixels."
    return [
        *joined(evidence, "splits", "Splits", SPLITS, side),
        *_shared_patients(evidence),
        *_shared_images(evidence),
        *joined(evidence, "dropped_files", "Files dropped", ("task", "part", "path", "reason")),
    ]


def folded(evidence: Evidence) -> list[Grid]:
    """Every class of every part, how its share differs between train and test, and which findings come together."""
    sizes = ("part", "class_name", "count", "negatives", "ignored", "fraction")
    shift = ("class_name", "train_fraction", "test_fraction", "difference")
    together = ("part", "class_a", "class_b", "count", "fraction_of_a")
    return [
        *per_task(evidence, "class_sizes", ": class sizes", sizes),
        *per_task(evidence, "label_shift", ": label shift from train to test", shift),
        *per_task(evidence, "label_cooccurrence", ": findings together", together),
    ]


def _shared_patients(evidence: Evidence) -> list[Grid]:
    """Number of patients in two parts: what a model may know of a test image from training."""
    rows = []
    for task, table in evidence.each("shared_patients"):
        for row in table.to_dict("records"):
            share = row["images_of_shared_b"] / max(row["images_b"], 1)
            counts = (str(row[key]) for key in ("patients_a", "patients_b", "shared_patients"))
            rows.append((task, f"{row['part_a']} and {row['part_b']}", *counts, formats.percent(share)))
    columns = ("task", "parts", "patients, first", "patients, second", "in both", "images of theirs in the second")
    note = "With `sampling: paper` patients leak from train to test, as in the study; with `by_patient` none does."
    return overview("Patients in two parts", columns, rows, note, "<task>.shared_patients.table")


def _shared_images(evidence: Evidence) -> list[Grid]:
    """Number of images in two parts, pixel for pixel as stored."""
    rows = []
    for task, table in evidence.each("shared_images"):
        for row in table[table["shared_b"] > 0].to_dict("records"):
            counts = (str(row[key]) for key in ("images_a", "images_b", "shared_b"))
            share = formats.percent(row["shared_b"] / row["images_b"])
            rows.append((task, f"{row['part_a']} and {row['part_b']}", *counts, share))
    columns = ("task", "parts", "images, first", "images, second", "of the second in the first", "as a share")
    note = "Equal pixels as stored. Metrics on images that a model was trained on say nothing about new ones."
    return overview("Images in two parts", columns, rows, note, "<task>.shared_images.table")
