"""The pipelines as Kedro-Viz draws them: entries that would crowd its first page stand together as one.

Kedro-Viz opens on closed boxes, one for each task, and shows every entry that goes from one box to another, that comes
from outside, or that no node reads. Those are dozens, and for `report`, which reads all tables and figures, hundreds.
Here entries of one kind from one box are drawn as one, `clipart.weights`, whose preview lists them. Inside the
boxes, and for every runner, the pipelines are what they were; names, previews and status of nodes stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

from kedro.pipeline import Node, Pipeline
from kedro.pipeline.pipeline import CircularDependencyError

from transferscope.experiment.names import EntryName, Namespace

MOST_ENTRIES = 22
"""On the first page; boxes come on top of them."""

KINDS = {
    "table": "tables_and_figures",
    "figure": "tables_and_figures",
    "checkpoints": "weights",
    "singular_values": "weights",
}
"""Forms of entries that are drawn together."""


@dataclass(frozen=True)
class Group:
    """Entries that are drawn as one."""

    name: str
    members: tuple[str, ...]
    box: str | None
    """The box in which they are made; None of those that come from outside."""


class DrawnNode(Node):
    """A node that is drawn with groups among its inputs; Kedro-Viz knows it by the same identity as in a run."""

    drawn_as: str
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, node: Node, group: Group) -> Node:
        """The node with the group in place of its members."""
        if not set(group.members) & set(node.inputs):
            return node
        made = copy(node)
        made.__class__ = cls
        assert isinstance(made, cls)
        for cached in ("inputs", "_unique_key"):
            made.__dict__.pop(cached, None)
        made.drawn_as = str(node)
        made.groups = (*getattr(node, "groups", ()), group)
        made._inputs = _renamed(node._inputs, dict.fromkeys(group.members, group.name))
        return made

    def __str__(self) -> str:
        return self.drawn_as


def _renamed(inputs: Any, names: Mapping[str, str]) -> Any:
    if isinstance(inputs, dict):
        return {key: names.get(name, name) for key, name in inputs.items()}
    return names.get(inputs, inputs) if isinstance(inputs, str) else [names.get(name, name) for name in inputs]


def drawn(pipeline: Pipeline) -> Pipeline:
    """The pipeline as it is drawn.

    A node `keep` reads the results of its box that no other node reads, unless they are all that leaves it. Then the
    largest groups are made, one by one, until at most `MOST_ENTRIES` entries are left, or none can be grouped any more.
    """
    made = _with_kept(pipeline)
    for group in _groups(made):
        if len(Top(made).entries) <= MOST_ENTRIES:
            break
        with suppress(CircularDependencyError):  # boxes that hand over to each other stay as they are
            made = _with_group(made, group)
    return made


class Top:
    """Entries on the first page, with the box that makes each and the boxes that read it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.maker: dict[str, str] = {}
        self.readers: dict[str, set[str]] = {}
        for node in pipeline.nodes:
            self.maker.update(dict.fromkeys(node.outputs, _box(node)))
            for name in node.inputs:
                if not name.startswith("params:") and name != "parameters":
                    self.readers.setdefault(name, set()).add(_box(node))
        self.entries = sorted(
            name
            for name in {*self.maker, *self.readers}
            if name not in self.maker or self.readers.get(name) != {self.maker[name]}
        )


def _box(node: Node) -> str:
    """The outermost namespace."""
    return Namespace.parse(node.namespace).levels[0] if node.namespace else ""


def _with_kept(pipeline: Pipeline) -> Pipeline:
    """The pipeline in which a box that hands something over shows nothing else that it makes."""
    top = Top(pipeline)
    made = [name for name in top.entries if name in top.maker]
    hand_over = {top.maker[name] for name in made if name in top.readers}
    unread: dict[str, list[str]] = {}
    for name in made:
        if name not in top.readers and top.maker[name] in hand_over:
            unread.setdefault(top.maker[name], []).append(name)
    keeping = [Node(keep, names, None, name="keep", namespace=box) for box, names in unread.items()]
    return Pipeline([*pipeline.nodes, *keeping])


def _groups(pipeline: Pipeline) -> list[Group]:
    """Groups of two entries or more, the largest first."""
    top = Top(pipeline)
    alike: dict[tuple[str, str | None], list[str]] = {}
    for name in top.entries:
        box, entry = top.maker.get(name), EntryName.parse(name)
        alike.setdefault((f"{box or entry.task}.{_kind(entry)}", box), []).append(name)
    groups = [Group(name, tuple(members), box) for (name, box), members in alike.items() if len(members) > 1]
    largest_first = sorted(groups, key=lambda group: (-len(group.members), group.name))
    return list({group.name: group for group in reversed(largest_first)}.values())[::-1]


def _kind(entry: EntryName) -> str:
    """The plural of an entry's form, or the name of several forms; the splits are one kind."""
    form = "split" if entry.form.endswith("_split") else entry.form
    plural = form if form.endswith("s") else f"{form[:-1]}ies" if form.endswith("y") else f"{form}s"
    return KINDS.get(form, plural)


def _with_group(pipeline: Pipeline, group: Group) -> Pipeline:
    """The pipeline in which other boxes than that of the group read the group in place of its members."""
    nodes = [node if _box(node) == group.box else DrawnNode.of(node, group) for node in pipeline.nodes]
    if group.box is not None:
        kind = EntryName.parse(group.name).form
        nodes.append(Node(hand_over, list(group.members), group.name, name=f"hand_over_{kind}", namespace=group.box))
    return Pipeline(nodes)


def hand_over(*entries: object) -> None:
    """Stand for the entries of one kind that other boxes read. It is drawn, and never run."""


def keep(*entries: object) -> None:
    """Stand for results that no node reads. It is drawn, and never run."""


def group_entries(pipelines: Iterable[Pipeline]) -> dict[str, dict[str, Any]]:
    """An entry of the catalog for each group in the pipelines; of groups with one name that of the largest."""
    groups = sorted(set(_groups_of(pipelines)), key=lambda group: len(group.members))
    kind = "transferscope.datasets.entry_group.EntryGroupDataset"
    return {group.name: {"type": kind, "entries": list(group.members)} for group in groups}


def _groups_of(pipelines: Iterable[Pipeline]) -> Iterator[Group]:
    for pipeline in pipelines:
        for node in pipeline.nodes:
            if isinstance(node, DrawnNode):
                yield from node.groups
