"""One look for every figure: sizes, colours by kind of model, axes, legends, notes.

Colours are those of Okabe and Ito (Color Universal Design, 2008), which people with colour-vision deficiencies tell
apart. A kind keeps its colour, marker and dash in every figure. Nothing here touches pyplot or the global rcParams,
so figures may be drawn in several threads, and a user's own matplotlib settings stay as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, SymmetricalLogLocator

from transferscope.plots.layout import SettledLayout, plain_figure
from transferscope.plots.roles import Kind, kind_of

PANEL_WIDTH = 3.4
DOUBLE_WIDTH = 7.0
DPI = 200
TITLE_SIZE = 8.5
LABEL_SIZE = 8.0
TICK_SIZE = 7.0
SMALL_SIZE = 6.0
GENERATED_NOTE = "generated images"
ALPHA, SIGMA = "\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER SIGMA}"
MINUS = "\N{MINUS SIGN}"
SEQUENTIAL_MAP = "viridis"
DIVERGING_MAP = "RdBu_r"

BLACK, GREY, LIGHT_GREY = "#000000", "#666666", "#d9d9d9"
ORANGE, SKY, GREEN = "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one kind of model or pair."""

    colour: str
    marker: str = "o"
    dash: str = "-"


LOOKS: Mapping[tuple[str | None, ...], Look] = {
    ("fine_tuned",): Look(BLUE, "o"),
    ("from_scratch",): Look(VERMILLION, "s"),
    ("shared_init",): Look(PURPLE, "D"),
    ("source",): Look(GREY, "^"),
    ("fine_tuned", "source"): Look(SKY, "v"),
    ("fine_tuned", "fine_tuned"): Look(BLUE, "o"),
    ("fine_tuned", "from_scratch"): Look(GREEN, "^"),
    ("from_scratch", "from_scratch"): Look(VERMILLION, "s"),
    ("from_scratch", "shared_init"): Look(PURPLE, "D"),
    ("shared_init", "shared_init"): Look(PURPLE, "D"),
}
"""By the role of a run, or the roles of both runs of a pair."""
UNTRAINED_LOOK = Look(ORANGE, "v", ":")
"""Of runs from scratch before their training, beside what they have become."""
SPARE_LOOKS = (
    Look(BLACK, "X"),
    Look(ORANGE, ">"),
    Look(GREEN, "*"),
    Look(SKY, "h"),
    Look(PURPLE, "p"),
    Look(GREY, "<"),
)


DASHES = ("-", "--", ":", "-.")


def looks_for(kinds: Sequence[str], read: Callable[[str], Kind] = kind_of) -> dict[str, Look]:
    """A look for every kind: that of its roles; of a variant where free, or its colour dashed; or a spare one."""
    kinds = list(dict.fromkeys(kinds))
    known = {text: read(text) for text in kinds}
    looks = {text: LOOKS[kind.roles] for text, kind in known.items() if kind.roles in LOOKS and not kind.variant}
    spare = itertools.cycle(SPARE_LOOKS)
    for text, kind in known.items():
        if text in looks:
            continue
        base = LOOKS.get(kind.roles)
        if base is None:
            looks[text] = next(spare)
        elif base not in looks.values():
            looks[text] = base
        elif len(kind.roles) > 1:
            looks[text] = next(spare)
        else:
            rank = sum(look.colour == base.colour for look in looks.values())
            looks[text] = Look(base.colour, base.marker, DASHES[rank % len(DASHES)])
    return {text: looks[text] for text in kinds}


def in_usual_order(kinds: Sequence[str], read: Callable[[str], Kind] = kind_of) -> list[str]:
    """Kinds in the order of `LOOKS`, a variant after its base, unknown ones last in order of appearance."""
    order = {roles: index for index, roles in enumerate(LOOKS)}

    def rank(text: str) -> tuple[int, bool]:
        kind = read(text)
        return order.get(kind.roles, len(order)), kind.variant or kind.roles not in order

    return sorted(dict.fromkeys(kinds), key=rank)


def new_figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float | None = None,
    panel_height: float = 2.2,
    sharex: bool | str = False,
    sharey: bool | str = False,
    margins: Mapping[str, float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes as an object array (rows, columns).

    Args:
        width: inches; default: `PANEL_WIDTH` for one column of panels, `DOUBLE_WIDTH` for more.
        panel_height: inches for each row.
        margins: of `Figure.subplots_adjust`, for many pages alike: the layout engine takes most of a figure's time.
    """
    width = width or (PANEL_WIDTH if columns == 1 else DOUBLE_WIDTH)
    figure = plain_figure(figsize=(width, panel_height * rows), dpi=DPI, facecolor="white")
    if margins:
        figure.subplots_adjust(**margins)
    else:
        figure.set_layout_engine(SettledLayout(w_pad=0.04, h_pad=0.04))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)  # type: ignore[arg-type]
    for ax in axes.flat:
        _dress(ax)
    return figure, axes


def _dress(ax: Axes) -> None:
    ax.set_axisbelow(True)
    ax.grid(True, color=LIGHT_GREY, linewidth=0.4)
    ax.tick_params(labelsize=TICK_SIZE, width=0.6, length=2.5, pad=2)
    ax.set_facecolor("white")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)


def framed(ax: Axes) -> None:
    """All four sides and no grid: for images and heat maps."""
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)


def label(ax: Axes, *, x: str | None = None, y: str | None = None, title: str | None = None) -> None:
    """Axis labels (with units) and title in the sizes of the house."""
    if x is not None:
        ax.set_xlabel(x, fontsize=LABEL_SIZE)
    if y is not None:
        ax.set_ylabel(y, fontsize=LABEL_SIZE)
    if title:
        ax.set_title(shorten(title, 2 * LONGEST_NAME), fontsize=TITLE_SIZE, pad=4)


LONGEST_NAME = 64
"""Letters of a label in a legend or a title; of a longer one the middle is left out."""


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int | None = None) -> None:
    """One legend under all panels, where it cannot cover data; its second and later rows make the figure higher."""
    if not labels:
        return
    labels = [shorten(text, LONGEST_NAME) for text in labels]
    widest = max(len(text) for text in labels)
    fitting = max(1, int(figure.get_figwidth() / (0.052 * widest + 0.42)))
    ncols = min(columns or fitting, fitting, len(labels))
    more_rows = math.ceil(len(labels) / ncols) - 1
    figure.set_figheight(figure.get_figheight() + more_rows * 1.7 * TICK_SIZE / 72)
    figure.legend(
        list(handles),
        list(labels),
        loc="outside lower center",
        ncols=ncols,
        fontsize=TICK_SIZE,
        frameon=False,
        handlelength=2.2,
        columnspacing=1.2,
        borderpad=0.1,
    )


def add_note(figure: Figure, note: str | None) -> Figure:
    """A small footnote such as `GENERATED_NOTE`, under everything else; gives the figure back."""
    if note:
        width, height = figure.get_size_inches()
        room = 0.15
        figure.set_size_inches(width, height + room)
        share = room / (height + room)
        figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))  # type: ignore[union-attr, call-arg]
        for legend in figure.legends:
            legend.borderaxespad += 72 * room / TICK_SIZE
        text = figure.text(0.995, 0.03 / (height + room), note, ha="right", va="bottom", fontstyle="italic")
        text.set(fontsize=SMALL_SIZE, color=GREY)
    return figure


def empty_figure(message: str, note: str | None = None) -> Figure:
    """A figure that says in words why there is nothing to see."""
    figure, axes = new_figure(panel_height=1.2)
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, message, ha="center", va="center", fontsize=LABEL_SIZE, color=GREY, wrap=True)
    return add_note(figure, note)


def category_ticks(ax: Axes, names: Sequence[str], *, axis: str = "x", longest: int = 22) -> None:
    """A tick for each of `names` at 0, 1, ...; upright, turned or thinned out so that no two labels overlap.

    The room is estimated from the figure's size. Turned labels make the figure higher, so that they do not take the
    room of the data.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    grid = ax.get_subplotspec().get_gridspec() if ax.get_subplotspec() else None  # type: ignore[union-attr]
    shown = [shorten(name, longest) for name in names]
    letter = TICK_SIZE / 72
    widest = max((len(name) for name in shown), default=1) * letter * 0.62
    if axis == "x":
        room = (figure.get_figwidth() / (grid.ncols if grid else 1) - 0.75) / max(len(shown), 1)
        turned = widest + 0.06 > room
        step = max(1, math.ceil(1.25 * letter / room)) if turned else 1
        if turned:
            figure.set_figheight(figure.get_figheight() + 0.7 * widest)
    else:
        room = (figure.get_figheight() / (grid.nrows if grid else 1) - 0.75) / max(len(shown), 1)
        turned, step = False, max(1, math.ceil(1.25 * letter / max(room, 1e-3)))
    positions = list(range(0, len(shown), step))
    put = ax.set_xticks if axis == "x" else ax.set_yticks
    put(positions, [shown[index] for index in positions], rotation=90 if turned else 0, fontsize=TICK_SIZE)


def shorten(text: str, longest: int = 22) -> str:
    """`text`, its middle replaced by an ellipsis where it is longer than `longest` letters."""
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def scale_for(ax: Axes, values: np.ndarray, *, axis: str = "y", ratio: float = 30.0) -> str:
    """Linear, log (all positive and spread over more than `ratio`) or symlog (the same with zeros or signs)."""
    values = np.asarray(values, dtype=float)
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if sizes.size == 0 or sizes.max() <= ratio * sizes.min():
        return "linear"
    kind = "log" if np.all(values[np.isfinite(values)] > 0) else "symlog"
    set_scale(ax, axis, kind, float(sizes.min()), float(sizes.max()))
    return kind


def set_scale(ax: Axes, axis: str, kind: str, smallest: float = 1e-3, largest: float = 1.0) -> None:
    """A log or symlog axis with plain or superscript labels (no math text: it is not safe in threads)."""
    change = ax.set_yscale if axis == "y" else ax.set_xscale
    side = ax.yaxis if axis == "y" else ax.xaxis
    if kind == "symlog":
        threshold = 10.0 ** math.floor(math.log10(smallest)) if smallest > 0 else 1e-3
        # Room for three labels about 0, also where an axis has many decades.
        decades = math.log10(max(largest / threshold, 1.0))
        change("symlog", linthresh=threshold, linscale=max(1.0, decades / 6))
        locator = SymmetricalLogLocator(base=10, linthresh=threshold)
        locator.set_params(numticks=7)
        side.set_major_locator(locator)
        # Margins anew: a twentieth of 1e10 below a value of -1 would be nine decades.
        ax.autoscale_view(scalex=axis == "x", scaley=axis == "y")
    else:
        change("log")
        side.set_major_locator(LogLocator(base=10, numticks=7))
        side.set_minor_locator(LogLocator(base=10, subs=(2.0, 5.0), numticks=12))
    side.set_major_formatter(FuncFormatter(power_label))
    side.set_minor_formatter(NullFormatter())


def power_label(value: float, _position: int | None = None) -> str:
    """0.001 to 1000 as they are, other powers of ten as 10⁻⁵; the rest in three digits."""
    if value == 0:
        return "0"
    exponent = round(math.log10(abs(value)))
    if -3 <= exponent <= 3 or not math.isclose(abs(value), 10.0**exponent, rel_tol=1e-6):
        return f"{float(f'{value:.3g}'):g}".replace("-", MINUS)
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{MINUS if value < 0 else ''}10{raised}"


def minor_labels_if_short(ax: Axes, axis: str = "y") -> None:
    """Label 2 and 5 between the powers of ten as well, where an axis spans few decades."""
    low, high = ax.get_ylim() if axis == "y" else ax.get_xlim()
    if low > 0 and high / low < 300:
        side = ax.yaxis if axis == "y" else ax.xaxis
        side.set_minor_formatter(FuncFormatter(power_label))
        ax.tick_params(axis=axis, which="minor", labelsize=TICK_SIZE, width=0.4, length=1.5, pad=2)  # type: ignore[arg-type]


METRIC_NAMES = {"accuracy": "accuracy", "loss": "loss (nats/example)", "auc": "AUC"}


def metric_axis(ax: Axes, metric: str, values: np.ndarray, *, prefix: str = "", at_least: float = 0.04) -> None:
    """Label and limits of a y axis that shows a metric.

    Accuracy and AUC stay within [0, 1]; an axis spans at least `at_least`, so that noise does not look like an effect.
    A loss that spans orders of magnitude gets a log axis.
    """
    name = METRIC_NAMES.get(metric, metric)
    label(ax, y=f"{prefix} {name}".strip() if not prefix or len(name) < 10 else f"{prefix} {name}".replace(" (", "\n("))
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return
    bounded = metric in ("accuracy", "auc", "error")
    if not bounded and scale_for(ax, values) != "linear":
        minor_labels_if_short(ax)
        return
    low, high = float(values.min()), float(values.max())
    missing = max(0.0, at_least - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.06 * (high - low) or 0.05
    ceiling = 1.0 + 0.2 * margin if bounded else math.inf
    ax.set_ylim(max(low - margin, -0.2 * margin), min(high + margin, max(ceiling, high + 0.2 * margin)))
    ax.yaxis.set_major_locator(MaxNLocator(5))
