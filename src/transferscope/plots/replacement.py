"""Figures of one model replaced by another: flips by group, and reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferscope.plots.roles import kind_of_pair
from transferscope.plots.rows import heading, in_order, kinds_of, require_columns, with_named_pairs
from transferscope.plots.style import (
    BLACK,
    BLUE,
    GREY,
    TICK_SIZE,
    TITLE_SIZE,
    VERMILLION,
    add_note,
    empty_figure,
    in_usual_order,
    label,
    legend_below,
    looks_for,
    new_figure,
    shorten,
)

MOST_ROWS = 24
"""Groups in the figure of flips; of more those whose accuracy changes most."""
MOST_PANELS = 12
"""Kinds of pairs, and pairs of files of a series, that have a panel; of more the first ones."""
ACROSS = 3
"""Panels beside each other."""
LONGEST_TITLE = 28
"""Letters of a pair above its panel in one line; the two of a longer one stand below each other."""
RATES = ("negative_flip_rate", "positive_flip_rate")
SIDES = (("turn wrong", -1, VERMILLION, RATES[0]), ("turn right", 1, BLUE, RATES[1]))


def flip_bars(
    flips: pd.DataFrame,
    *,
    names: Mapping[str, str] | None = None,
    title: str | None = None,
    note: str | None = None,
) -> Figure:
    """Images that turn wrong, to the left, and right, to the right, when the first model is replaced by the second.

    A panel for each kind of pair, a row for all images and for each group of them, the mean over the pairs of the kind.
    Whiskers are the 95 % intervals over images (means of the pairs' own), the dot is the gain in accuracy. Of more than
    24 groups those are shown whose accuracy changes most, of more than 12 panels the first ones.

    Args:
        flips: columns pair_kind, class_name, group, value, num_examples, accuracy_gain and both flip rates, with
            `_low` and `_high`; with names also checkpoint_a and checkpoint_b.
        names: Shown names of files that have one label together, by the full name of the run: each pair of these has a
            panel of its own.
    """
    ranged = [f"{rate}{end}" for rate in RATES for end in ("", "_low", "_high")]
    require_columns(flips, ("pair_kind", "class_name", "group", "value", "num_examples", "accuracy_gain"), "flips")
    rows = flips[flips["num_examples"] > 0]
    if rows.empty:
        return empty_figure("no flips to show", note)
    if not rows[list(RATES)].to_numpy().any():
        return empty_figure("no prediction turns wrong or right", note)
    if names:
        rows, _ = with_named_pairs(rows, names, len(rows))
    every = in_usual_order(in_order(rows["pair_kind"]), kind_of_pair)
    kinds = every[:MOST_PANELS]
    rows = rows[rows["pair_kind"].isin(kinds)]
    keys = ["class_name", "group", "value"]
    means = rows.groupby(["pair_kind", *keys], sort=False)[[*ranged, "accuracy_gain"]].mean()
    shown, left_out = _most_changed(means, keys)
    columns = min(len(kinds), ACROSS)
    figure, axes = new_figure(-(-len(kinds) // columns), columns, panel_height=0.8 + 0.17 * len(shown), sharex=True)
    for ax in axes.flat[len(kinds) :]:
        ax.set_axis_off()
    y = np.arange(len(shown), dtype=float)
    for ax, kind in zip(axes.flat, kinds, strict=False):
        _bars(ax, means.loc[[kind]].droplevel(0).reindex(shown), y)
        first = ax in axes[:, 0]
        ax.set_yticks(y, [_row_name(*key) for key in shown] if first else [""] * len(y), fontsize=TICK_SIZE)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.tick_params(labelbottom=True)
        shown_pair = kind if len(kind) <= LONGEST_TITLE else kind.replace(" & ", " &\n")
        label(ax, x="% of images", y="group of images" if first else None, title=shown_pair)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, handles, labels)
    text = heading(title, rows) or ""
    parts = [f"the {len(shown)} rows of {len(shown) + left_out} that change most"] if left_out else []
    parts += [f"the first {len(kinds)} pairs of {len(every)}"] if len(every) > len(kinds) else []
    figure.suptitle(f"{text} ({', '.join(parts)})" if parts else text, fontsize=TITLE_SIZE)
    return add_note(figure, note)


def _most_changed(means: pd.DataFrame, keys: list[str]) -> tuple[pd.MultiIndex, int]:
    """The rows that are shown, in order of appearance, and how many are not."""
    change = means["accuracy_gain"].abs().groupby(keys, sort=False).max()
    whole = change.index.get_level_values("group") == "all"
    kept = set(change.index[whole]) | set(change[~whole].nlargest(max(0, MOST_ROWS - int(whole.sum()))).index)
    shown = [key for key in change.index if key in kept]
    return pd.MultiIndex.from_tuples(shown, names=keys), len(change) - len(shown)


def _bars(ax: Axes, rows: pd.DataFrame, y: np.ndarray) -> None:
    for name, sign, colour, rate in SIDES:
        value, low, high = (100 * rows[f"{rate}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        ax.barh(y, sign * value, 0.72, color=colour, alpha=0.55, linewidth=0, label=name)
        ax.hlines(y, sign * low, sign * high, color=colour, linewidth=0.9)
    gain = 100 * rows["accuracy_gain"].to_numpy(dtype=float)
    ax.plot(gain, y, linestyle="", marker="o", markersize=2.6, color=BLACK, label="gain in accuracy")
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.grid(False, axis="y")


def _row_name(class_name: str, group: str, value: str) -> str:
    """`all`, a class, `sex: Female`, or behind the name of a finding."""
    own = "all" if group == "all" else value if group == "class" else f"{group}: {value}"
    if class_name == "all":
        return shorten(own)
    return shorten(class_name) if group == "all" else f"{shorten(class_name, 14)}, {shorten(own, 18)}"


def reliability_diagram(reliability: pd.DataFrame, *, title: str | None = None, note: str | None = None) -> Figure:
    """Rate at which predictions come true against the probability that the model states for them.

    A curve for each kind of run, the mean over its runs in each bin; whiskers are the 95 % intervals over images. Above
    the diagonal a model is less sure than it could be, below it too sure. A panel for each finding of a multi-label
    task, at most six.

    Args:
        reliability: columns run, class_name, bin_low, num_examples, confidence, rate, rate_low, rate_high.
    """
    needed = ("run", "class_name", "bin_low", "num_examples", "confidence", "rate", "rate_low", "rate_high")
    require_columns(reliability, needed, "reliability")
    if reliability.empty:
        return empty_figure("no probabilities to show", note)
    rows = reliability.assign(kind=kinds_of(reliability))
    kinds = in_usual_order(in_order(rows["kind"]))
    looks = looks_for(kinds)
    classes = in_order(rows["class_name"])[:6]
    columns = min(3, len(classes))
    figure, axes = new_figure(-(-len(classes) // columns), columns, panel_height=2.5, sharex=True, sharey=True)
    for ax in axes.flat[len(classes) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, classes, strict=False):
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6)
        for kind in kinds:
            chosen = rows[(rows["class_name"] == name) & (rows["kind"] == kind)]
            means = chosen.groupby("bin_low")[["confidence", "rate", "rate_low", "rate_high"]].mean()
            look = looks[kind]
            x = means["confidence"]
            ax.plot(x, means["rate"], look.dash, marker=look.marker, markersize=3, color=look.colour, label=kind)
            ax.vlines(x, means["rate_low"], means["rate_high"], color=look.colour, linewidth=0.6)
        whole = name == "all"
        label(ax, x="stated probability", y="comes true", title=heading(title, rows) if whole else name)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    legend_below(figure, *axes.flat[0].get_legend_handles_labels())
    if classes != ["all"] and title:
        figure.suptitle(title, fontsize=TITLE_SIZE)
    return add_note(figure, note)
