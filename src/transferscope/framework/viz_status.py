"""The status of runs for Kedro-Viz: status and duration of every node, rows and sizes of tables.

Kedro-Viz's own hooks record whole runs one node after the other, and forget them at the next run. These go on from
what was recorded before, for any runner that calls hooks and for any part of the study.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Node
from kedro_viz.constants import PIPELINE_EVENTS_FILENAME, VIZ_METADATA_DIR
from kedro_viz.integrations.kedro.hooks_utils import generate_timestamp, hash_node

from transferscope.experiment.names import Namespace
from transferscope.framework.kedro_private import place_of, viz_identity
from transferscope.system.atomic import atomic_file
from transferscope.system.errors import UserError

logger = logging.getLogger("transferscope")

STATS_FILENAME = "stats.json"

KEPT = {"after_node_run", "on_node_error", "after_dataset_loaded", "after_dataset_saved"}
"""Events that stay until the same node runs again, or the same entry is read or written again."""

WRITE_SECONDS = 30.0
"""Between writes while nodes run, so that a long run can be watched, and a killed one leaves what was done."""

Event = dict[str, Any]


class RunStatus:
    """Hooks that keep `.viz/kedro_pipeline_events.json` and `.viz/stats.json`, the files that Kedro-Viz reads.

    An event is kept until the same node runs again, or the same entry is read or written again.
    """

    def __init__(self) -> None:
        self._folder = VIZ_METADATA_DIR
        self._catalog: CatalogProtocol | None = None
        self._begun: dict[str, float] = {}
        self._events: dict[str, Event] = {}
        self._stats: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()
        self._can_write = True
        self._written = math.inf
        """When; a process in which no run begins, as a worker of Ray, writes nothing."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._folder = Path(context.project_path) / VIZ_METADATA_DIR

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        self._catalog = catalog

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Begin with what earlier runs have left, but for how they began and ended."""
        self._can_write = True
        self._begun = {}
        earlier = _read(self._folder / PIPELINE_EVENTS_FILENAME, _are_events)
        self._events = {"begin": {"event": "before_pipeline_run", "timestamp": generate_timestamp()}}
        kept = (event for event in earlier or () if event["event"] in KEPT and "box" not in event)
        self._events |= {event.get("node", event["node_id"]): event for event in kept}
        self._stats = _read(self._folder / STATS_FILENAME, _are_sizes) or {}
        self._written = time.perf_counter()

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        self._begun[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """The duration is that until here; large outputs are made when they are saved, and add to it."""
        event = {"event": "after_node_run", "node": node.name, "status": "success"}
        self._note(event | {"duration": time.perf_counter() - self._begun[node.name]}, node)
        self._write_at_times()

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        self._note({"event": "on_node_error", "node": node.name, **_what_went_wrong(error)}, node)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        self._note_entry("after_dataset_loaded", dataset_name, data)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        self._events[node.name]["duration"] = time.perf_counter() - self._begun[node.name]
        self._note_entry("after_dataset_saved", dataset_name, data)

    @hook_impl
    def after_pipeline_run(self) -> None:
        self._write({"event": "after_pipeline_run", "timestamp": generate_timestamp()})

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        self._write({"event": "on_pipeline_error", **_what_went_wrong(error)})

    def notes(self) -> tuple[dict[str, Event], dict[str, dict[str, int]]]:
        """Events and sizes of tables that were noted since the last call, for the process of the run."""
        with self._lock:
            noted = self._events, self._stats
            self._events, self._stats = {}, {}
        return noted

    def add_notes(self, node: Node, notes: tuple[dict[str, Event], dict[str, dict[str, int]]]) -> None:
        """Take over what another process has noted."""
        events, stats = notes
        with self._lock:
            self._events |= events
            self._stats |= stats
        self._write_at_times()

    def _note(self, event: Event, node: Node) -> None:
        with self._lock:
            self._events[node.name] = event | {"node_id": hash_node(node)}

    def _note_entry(self, event: str, name: str, data: Any) -> None:
        identity = viz_identity(name)
        noted = {"event": event, "dataset": name, "node_id": identity, "status": "Available"}
        size = _size(self._catalog.get(name) if self._catalog is not None else None)
        with self._lock:
            self._events[identity] = noted | {"size": size}
            if hasattr(data, "columns") and hasattr(data, "shape"):
                rows, columns = data.shape
                self._stats[name] = {"rows": int(rows), "columns": int(columns)} | ({"file_size": size} if size else {})

    def _write_at_times(self) -> None:
        if time.perf_counter() - self._written > WRITE_SECONDS:
            self._write()

    def _write(self, *end: Event) -> None:
        with self._lock:
            self._written = time.perf_counter()
            if not self._can_write:
                return
            events = [*self._events.values(), *_boxes(self._events.values()), *end]
            try:
                _write(self._folder / PIPELINE_EVENTS_FILENAME, events)
                _write(self._folder / STATS_FILENAME, self._stats)
            except (OSError, UserError) as error:
                self._can_write = False
                logger.warning("%s cannot be written (%s): Kedro-Viz will not show this run", self._folder, error)


def _boxes(events: Iterable[Event]) -> list[Event]:
    """An event for every namespace, which Kedro-Viz draws as a box: the time of its nodes, or which of them failed."""
    inside: dict[str, list[Event]] = {}
    for event in events:
        namespace = Namespace.of_node(event.get("node", ""))
        for level in namespace.levels if namespace else ():
            inside.setdefault(level, []).append(event)
    return [_box(namespace, events) | {"node_id": namespace, "box": True} for namespace, events in inside.items()]


def _box(namespace: str, events: list[Event]) -> Event:
    failed = [event["node"] for event in events if event["event"] == "on_node_error"]
    if failed:
        return {"event": "on_node_error", "error": f"failed in {namespace}: {', '.join(failed)}"}
    return {"event": "after_node_run", "status": "success", "duration": sum(event["duration"] for event in events)}


def _what_went_wrong(error: Exception) -> Event:
    return {
        "error": str(error),
        "timestamp": generate_timestamp(),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _size(dataset: Any) -> int:
    """Bytes of an entry's file, or of the files in its folder; 0 for what is in memory."""
    path = place_of(dataset)
    if path is None:
        return 0
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _read(path: Path, is_right: Callable[[Any], bool]) -> Any:
    """The content of a JSON file; None, with a warning, where it cannot be read or is not what it should be."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf8"))
        if is_right(found):
            return found
        problem = "its content is of another shape"
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
    logger.warning("%s cannot be used (%s): Kedro-Viz's run status begins anew", path, problem)
    return None


def _are_events(found: Any) -> bool:
    """Whether each is of a kind that is known, with what is read of it here."""
    return isinstance(found, list) and all(isinstance(event, dict) and _is_event(event) for event in found)


def _is_event(event: Event) -> bool:
    if not isinstance(event.get("event"), str):
        return False
    if event["event"] not in KEPT or "box" in event:
        return True
    if event["event"] == "after_node_run":
        return isinstance(event.get("node"), str) and isinstance(event.get("duration"), int | float)
    if event["event"] == "on_node_error":
        return isinstance(event.get("node"), str) and isinstance(event.get("error"), str)
    return isinstance(event.get("node_id"), str) and "node" not in event


def _are_sizes(found: Any) -> bool:
    return isinstance(found, dict) and all(
        isinstance(sizes, dict) and all(isinstance(size, int) for size in sizes.values()) for sizes in found.values()
    )


def _write(path: Path, content: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf8")
