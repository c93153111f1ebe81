"""Name the modules that changed most, and those that are critical."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from transferscope.analysis.merging.candidates import UNRELATED
from transferscope.answers.answer import NO, UNKNOWN, YES, Answer
from transferscope.answers.compared import Compared, Pair, Row
from transferscope.answers.findings import Finding, Places, answer_of, largest, of_some, of_verdict
from transferscope.answers.learned import WOULD_TELL, why_not
from transferscope.answers.one_basin import CONNECTION, cause_of, metric_name
from transferscope.answers.rule import Numbers, among, decide, images_that_decide
from transferscope.answers.same_function import Relation, facts, is_rounded_copy, relation
from transferscope.answers.wording import at_most, count, listed, percent, point_range, points, sentence, tiny
from transferscope.experiment.names import RunName

TOTALS = ("all", "sum")
MATCHED = "aligned_modules"
"""The way on which modules are moved between networks whose channels are matched."""
SHOWN = 3
"""Modules that a sentence names."""
RELATED = 0.5
"""Weights of networks with a common start correlate by more once channels are matched.

Matching lifts the correlation of unrelated networks, too, but by less."""
CLOSER = 0.9
"""Channels are taken as exchanged where matching them leaves less than this part of the distance."""


def changed_modules(compared: Compared) -> Answer | None:
    """Name the modules whose weights differ most, relative to their norm; None where weights cannot be compared."""
    findings = [one for pair in compared.pairs_of_weights if (one := _distance(compared, pair)) is not None]
    if not findings:
        return None
    shown = largest(findings)
    if len(findings) == 1:
        question = f"Which modules differ most between {compared.both(shown.pair)}?"
        parts = [shown.text]
    else:
        question = "Which modules differ most?"
        parts = [f"the pair that lies farthest apart is {compared.both(shown.pair)}", shown.text]
    in_order = relation(compared, shown.pair) is not Relation.PERMUTED  # the figure has the files' order
    return answer_of(
        shown,
        findings,
        compared,
        id="changed_modules",
        question=question,
        answer=sentence(parts),
        unit="share",
        measure="l2 distance of all weights over their norm in the first model"
        if in_order
        else "largest l2 distance of a module's weights over their norm, with channels matched",
        figure=compared.figure("distance_per_module") if in_order else "",
        section="table_2",
    )


def _distance(compared: Compared, pair: Pair) -> Finding | None:
    """Value: distance of all weights, relative to those of the first model. It follows from weights: no interval."""
    pair = compared.written("distances", pair)
    plain = _modules(compared.rows("distances", pair))
    if plain.empty:
        return None
    first = compared.label(pair.first)
    known, row = relation(compared, pair), facts(compared, pair)
    if row is not None and not row["comparable"]:
        return None  # a table of the tensors that both have says nothing of the networks
    whole = _whole(compared.rows("distances", pair))
    if known is Relation.EQUAL:
        return Finding(pair, "", "no module differs, in any weight", 0.0)
    if known in (Relation.ROUNDED, Relation.PERMUTED):
        matched = _modules(compared.rows("aligned_distances", pair))
        table = matched if len(matched) and known is Relation.PERMUTED else plain
        when = "once the channels are put in one order, " if known is Relation.PERMUTED else ""
        most = float(table["relative"].replace(math.inf, np.nan).max())
        differs = f"differs by more than {tiny(most)} of its norm, which is rounding" if most else "differs"
        return Finding(pair, "", f"{when}no module {differs}", most)
    if row is not None and is_rounded_copy(compared, pair):
        most = float(plain["relative"].replace(math.inf, np.nan).max())
        return Finding(pair, "", f"no module differs by more than rounding, {percent(most)} of its norm", whole)
    if row is not None and _shares_nothing(row):
        return _unrelated(compared, pair, plain, whole)
    scaled = " (scales of BatchNorm included)" if compared.has_batchnorm(pair) else ""
    table, before = plain, "relative to their norm"
    if row is not None and float(row["relative_matched"]) < CLOSER * whole:
        table, whole = _modules(compared.rows("aligned_distances", pair)), float(row["relative_matched"])
        before = f"with channels matched ({percent(float(row['moved']))} of them move), relative to their norm"
    ordered = table[np.isfinite(table["relative"])].sort_values("relative", ascending=False, kind="stable")
    if ordered.empty:
        return None
    names = [f"{module_name(one)} ({percent(one['relative'])})" for one in ordered.head(SHOWN).to_dict("records")]
    text = f"{before} in {first}{scaled}, {listed(names)} differ{'s' if len(names) == 1 else ''} most"
    if len(ordered) > SHOWN:
        last = ordered.iloc[-1]
        text += f" and {module_name(last)} ({percent(float(last['relative']))}) least"
    return Finding(pair, "", f"{text}; all weights together differ by {percent(whole)}", whole)


def _unrelated(compared: Compared, pair: Pair, table: pd.DataFrame, whole: float) -> Finding:
    row = facts(compared, pair)
    assert row is not None
    known = table.loc[np.isfinite(table["relative"]), "relative"]
    correlation = f"{abs(float(row['correlation'])):.2f}"
    if not math.isnan(float(row["correlation_matched"])):
        correlation += f" ({float(row['correlation_matched']):.2f} with channels matched)"
    of = f"their norm in {compared.label(pair.first)}"
    of += ", scales of BatchNorm included" if compared.has_batchnorm(pair) else ""
    text = (
        f"none can be singled out: the weights correlate by {correlation}, as those of networks that were trained "
        f"independently, and with channels in the order of the files the "
        f"modules differ by {percent(float(known.min()))} to {percent(float(known.max()))} of {of}"
    )
    return Finding(pair, "", text, whole)


def _shares_nothing(row: Row) -> bool:
    """True where the weights correlate as those of networks without a common start, in any order of channels."""
    plain, matched = float(row["correlation"]), float(row["correlation_matched"])
    return plain < UNRELATED and not matched >= RELATED


def module_name(row: Row) -> str:
    """The module of a row, `layer1.0`; `module 3` where networks number them."""
    name = str(row["module"])
    return f"module {name}" if name.isdigit() else name


def _modules(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["module"].isin(TOTALS)] if len(table) else table


def _whole(table: pd.DataFrame) -> float:
    rows = table[table["module"] == "all"]
    return float(rows["relative"].iloc[0]) if len(rows) else math.nan


def critical_modules(compared: Compared) -> Answer | None:
    """Name the modules that bear being moved half-way to the other model's worst; None where none was moved."""
    measured = [pair for pair in compared.pairs if len(_profile(compared, pair))]
    number = sum(not why_not(compared, pair) for pair in measured)
    findings = [one for pair in measured if (one := _critical(compared, pair, number)) is not None]
    if not findings:
        return None
    told = [one for one in findings if not math.isnan(one.value)] or findings
    shown = of_some(told)
    question = f"Which modules are critical on the way between {compared.both(shown.pair)}?"
    parts = [shown.text]
    if len(findings) > 1:
        places = Places(compared, findings)
        if not places.of_one_pair:
            question = "Which modules are critical on the way between two of them?"
        parts = _of_many(places, told, shown)
    return answer_of(
        shown,
        findings,
        compared,
        id="critical_modules",
        question=question,
        answer=sentence(parts),
        unit="score",
        measure="fall of the test metric when one module alone is moved half-way to the other model's, largest module",
        figure=compared.figure(*connection_figures(shown.pair), "connection_", task=shown.pair.task),
        section="connection",
    )


def connection_figures(pair: Pair) -> tuple[str, str]:
    """Names of the figure of the ways between two models, in either order."""
    first, second = (RunName.parse(run).run for run in (pair.first, pair.second))
    return f"connection_{first}__{second}", f"connection_{second}__{first}"


def _of_many(places: Places, findings: list[Finding], shown: Finding) -> list[str]:
    critical, number = of_verdict(findings, YES), count(len(findings), places.noun)
    on = "on images of" if places.of_one_pair else "between" if places.on_one_task else "in"
    if critical:
        some = f"{on} {len(critical)} of {number} some module is critical"
        return [f"{some}, most {places.at(shown.pair)}", shown.text]
    if math.isnan(shown.value):
        return [f"{on} {number} it cannot be told, because the models have not learned the images"]
    none = f"{on} none of {number} is a module known to be critical"
    return [none, f"{places.at(shown.pair)}, where one costs most, {shown.text}"]


def _profile(compared: Compared, pair: Pair) -> pd.DataFrame:
    """Costs of the modules that are moved one at a time, on the way that explains the barrier; none of one function."""
    if relation(compared, pair).by_weights or is_rounded_copy(compared, pair):
        return pd.DataFrame()
    rows = compared.main_rows("connection_modules", pair)
    rows = rows[rows["profile"] == "alone"] if len(rows) else rows
    if rows.empty:
        return rows
    matched = _is_of_order(compared, pair) and bool((rows["way"] == MATCHED).any())
    return rows[rows["way"] == (MATCHED if matched else "modules")]


def _is_of_order(compared: Compared, pair: Pair) -> bool:
    """True where the way that leaves least of a barrier puts the channels of the two in one order."""
    cause, row = cause_of(compared, pair), facts(compared, pair)
    moved = row is not None and float(row["moved"]) > 0
    return cause is not None and cause.way.startswith("aligned") and moved


def _critical(compared: Compared, pair: Pair, number: int) -> Finding | None:
    """Modules that cost more than the margin, by intervals that hold for all modules of `number` pairs at once."""
    rows, margin = _profile(compared, pair), compared.margin(pair)
    if not rows.empty and (reason := why_not(compared, pair)):
        return Finding(pair, UNKNOWN, f"it cannot be told, because {reason}", would_tell=WOULD_TELL)
    if rows.empty or not margin > 0:
        return None
    ordered = rows.sort_values("drop", ascending=False, kind="stable").to_dict("records")
    drops = {module_name(row): among(_drop(row), number * len(ordered)) for row in ordered}
    verdicts = [decide(*drop, (margin, math.inf)) for drop in drops.values()]
    first, numbers = next(iter(drops.items()))
    order = ""
    if _is_of_order(compared, pair):
        order = " with channels in the order of the files, whose mismatch is part of the cost"
    matched_too = " and with channels matched" if (rows["way"] == MATCHED).all() else order
    taken = int(ordered[0]["num_examples"])
    images = f", {count(taken, 'test image')}"
    how = f"set half-way to the other model's, one at a time{matched_too} (mean over both models{images})"
    cost = f"{points(numbers[0])}{point_range(numbers[1], numbers[2])} of test {metric_name(compared, pair)}"
    limit = f"the margin of {points(margin)}"
    critical = [module for module, verdict in zip(drops, verdicts, strict=True) if verdict == YES]
    undecided = [
        module
        for module, verdict, row in zip(drops, verdicts, ordered, strict=True)
        if verdict == UNKNOWN and not _is_nothing(row, margin)
    ]
    would = _would_tell(compared, pair, [drops[module] for module in undecided], margin, taken) if undecided else ""
    if critical:
        others = [f"{module} ({points(drops[module][0])})" for module in critical[1:SHOWN]]
        then = f", then {listed(others)}" if others else ""
        if not _in_order(drops, critical[:SHOWN]):
            then += ", but intervals of the modules overlap, so their order is not settled"
        which = listed(undecided) if len(undecided) <= SHOWN else f"{len(undecided)} others"
        rest = f"; whether {which} cost{_s(undecided)} more than the margin cannot be told" if undecided else ""
        text = (
            f"{len(critical)} of {count(len(ordered), 'module')} cost{_s(critical)} more than "
            f"{limit} when {how}: the measured cost is largest for {first}, {cost}{then}{rest}"
        )
        left_open = f"whether {which} cost{_s(undecided)} more than the margin" if undecided else ""
        return Finding(pair, YES, text, *numbers, would, left_open)
    if not undecided:
        highest = max(0.0, *(high for _, _, high in drops.values()))
        metric = metric_name(compared, pair)
        fall = f"no fall is measured for any (by the intervals {at_most(highest)} of test {metric})"
        fall = f"the largest fall is {cost}, of {first}" if numbers[0] > 0 else fall
        text = f"none is: {how}, no module costs more than {limit}, and {fall}"
        return Finding(pair, NO, text, *numbers)
    text = f"it cannot be told: {how}, the largest fall is {cost}, of {first}, and {limit} lies in an interval"
    return Finding(pair, UNKNOWN, text, *numbers, would)


def _would_tell(compared: Compared, pair: Pair, drops: Sequence[Numbers], margin: float, taken: int) -> str:
    """Images of which 80 % of sets decide all of the modules that are open; one that needs too many names no number."""
    power = 1 - 0.2 / len(drops)
    needed = [images_that_decide(*drop, margin, taken, power=power) for drop in drops]
    most = max(needed) if all(map(math.isfinite, needed)) else math.nan
    return compared.images_that_tell(pair, most, taken, CONNECTION)


def _s(modules: Sequence[str]) -> str:
    """The ending of the verb."""
    return "s" if len(modules) == 1 else ""


def _drop(row: Row) -> Numbers:
    return float(row["drop"]), float(row["low"]), float(row["high"])


def _in_order(drops: Mapping[str, Numbers], named: Sequence[str]) -> bool:
    """True where each of the named modules is known to cost more than the next one, and the first than all others."""
    pairs = [*pairwise(named), *((named[0], module) for module in drops if module != named[0])]
    return all(drops[more][1] > drops[less][2] for more, less in pairs)


def _is_nothing(row: dict[object, object], margin: float) -> bool:
    """True where no resample changes a drop below the margin, so that its interval has no length."""
    return float(str(row["low"])) == float(str(row["high"])) < margin
