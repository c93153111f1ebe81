"""Track which plan made each result, so that those of another plan are named before anything runs.

A checkpoint is stale where its fingerprint is not that of this plan, the digest of task, images, model, training,
initialisation and seeds, of the run that it starts from and of files, but not of the number of processes.
`experiment.fingerprint` makes it, and `framework.input_checks` refuses those of another one. Tables and figures bear
none; here each entry has a key that follows from its node, the parameters of that node, and the keys of what the node
reads. The keys under which results were made are kept beside
them, and compared with those that the present plan gives. The digest of each is kept too: an older version in its
place, whole by its own digest, is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import CatalogProtocol
from kedro.pipeline import Node, Pipeline
from pydantic import BaseModel

from transferscope.framework.command_line import CommandLineError
from transferscope.framework.runners.failures import run_command
from transferscope.framework.stale_inputs import check_images
from transferscope.pipelines.wiring import parts_of
from transferscope.system.stored import DamagedError, read_json, write_json

logger = logging.getLogger("transferscope")

FILE = ".made_by.json"

IRRELEVANT = {"models_folder", "num_workers"}
"""Parameters that change no result."""

UNKNOWN = "unknown"
"""The key of a result of which it is not known what made it."""

NAMED = 3


class MadeBy:
    """Hooks that keep the keys of all results in the data folder, and name what another plan has made."""

    def __init__(self) -> None:
        self._context: KedroContext | None = None
        self._file = Path(FILE)
        self._compute: Callable[[], dict[str, str]] = dict
        self._present: dict[str, str] = {}
        self._outdated = False
        """True if a split was packed since the keys were computed, which depend on its content."""
        self._made: dict[str, str] = {}
        self._written: dict[str, str] = {}
        """The digest of each result as it was written."""
        self._digest: Callable[[str], str] = lambda name: ""
        self._saved: set[str] = set()
        self._lock = threading.Lock()

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        if self._context is not None:
            folder = self._context.config_loader["globals"].get("data", "data")
            self._file = Path(self._context.project_path) / folder / FILE
        # Parameters stay as they are in a run, of which the keys are computed again after each split that is packed.
        nodes, parameter = pipelines["__default__"].nodes, cache(partial(_parameter_digest, catalog.load))
        self._digest = partial(_content_digest, catalog)
        self._compute = lambda: present_keys(nodes, parameter, self._digest)
        self._present, self._outdated, self._saved = self._compute(), False, set()
        for path in (self._file, _journal(self._file)):
            if path.is_dir():
                raise CommandLineError(f"{path} is a folder, where a file says which plan made the results: remove it")
        try:
            self._made, self._written = _read(self._file)
        except DamagedError as error:
            logger.warning(
                "%s is damaged (%s): which plan made the results is not known; `kedro run` makes them anew",
                error.path,
                error.reason,
            )
            names = [name for name in self._present if not name.endswith(".checkpoints") and has_entry(catalog, name)]
            self._made, self._written = dict.fromkeys(names, UNKNOWN), {}
            self._write()
        if _journal(self._file).is_file():  # of a run that was killed
            self._write()
        only_missing = bool(run_params.get("only_missing_outputs"))
        if self._context is not None:
            check_images(pipeline, catalog, only_missing=only_missing)
        kept = {name for name in pipeline.all_outputs() if has_entry(catalog, name)} if only_missing else set()
        self._check_versions(pipeline.inputs() | kept, catalog)
        if forgotten := self._written.keys() & (pipeline.all_outputs() - kept):
            # Whoever writes them, and wherever this run ends: of what is not noted again no version is the last one.
            self._written = {name: digest for name, digest in self._written.items() if name not in forgotten}
            self._write()
        stale = {name for name in self._stale() if has_entry(catalog, name)}
        _report(stale, pipeline, only_missing=only_missing)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Note that it is not known what made the result, for the case that the run is killed while it is saved."""
        with self._lock:
            if dataset_name in self._present:
                _append(_journal(self._file), dataset_name, UNKNOWN)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """The result is of the present plan, if all that its node has read is."""
        node = next(part for part in parts_of(node) if dataset_name in part.outputs)
        with self._lock:
            self._saved.add(dataset_name)
            is_split, reads_split = _is_split(dataset_name), any(map(_is_split, node.inputs))
            if self._outdated and (reads_split or not is_split):
                self._present, self._outdated = self._compute(), False
            self._outdated = self._outdated or is_split
            key = self._present.get(dataset_name)
            if key is None:
                return
            of_another = [name for name in node.inputs if self._made.get(name) != self._present.get(name)]
            mixed = [name for name in of_another if name in self._made]
            self._made[dataset_name] = _digest([key, *mixed]) if mixed else key
            self._written[dataset_name] = self._digest(dataset_name)
            _append(_journal(self._file), dataset_name, self._made[dataset_name], self._written[dataset_name])

    def notes(self) -> list[str]:
        """Entries that were saved in a process in which no run began, since the last call."""
        with self._lock:
            saved = sorted(self._saved)
            self._saved = set()
        return saved

    def add_notes(self, node: Node, notes: list[str]) -> None:
        """Take over what another process has saved."""
        for name in notes:
            self.after_dataset_saved(name, node)

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Note all results where other processes do not report theirs, as under Kedro's ParallelRunner."""
        if not run_params.get("only_missing_outputs"):
            if self._outdated or not self._saved:
                self._present, self._outdated = self._compute(), False
            elsewhere = (pipeline.all_outputs() & self._present.keys()) - self._saved
            self._made |= {name: self._present[name] for name in elsewhere}
            self._written |= {name: self._digest(name) for name in elsewhere}
        self._write()

    @hook_impl
    def on_pipeline_error(self) -> None:
        self._write()

    def _stale(self) -> Iterable[str]:
        return (name for name, key in self._present.items() if self._made.get(name, key) != key)

    def _check_versions(self, used: Iterable[str], catalog: CatalogProtocol) -> None:
        """Raise CommandLineError for what is read, or kept, and is whole but not what was written last."""
        noted = ((name, self._written.get(name)) for name in used)
        others = {name for name, digest in noted if digest and self._digest(name) not in ("", digest)}
        others = {name for name in others if has_entry(catalog, name)}
        if others:
            raise CommandLineError(
                f"{_names(others)}: another version than was written last, such as that of an older copy; "
                f"{_how_to_make(others)}"
            )

    def _write(self) -> None:
        written = {name: digest for name, digest in self._written.items() if digest}
        write_json(self._file, {"made": dict(sorted(self._made.items())), "written": dict(sorted(written.items()))})
        _journal(self._file).unlink(missing_ok=True)


def present_keys(
    nodes: Iterable[Node], parameter: Callable[[str], str], content: Callable[[str], str] = lambda name: ""
) -> dict[str, str]:
    """The key of every output of `nodes`, which come in the order of their dependencies.

    `parameter` gives the digest of parameters, and `content` that of a packed split, by which other images are noticed.
    """
    keys: dict[str, str] = {}
    values: dict[str, str] = {}
    for node in chain.from_iterable(map(parts_of, nodes)):
        parts = [node.name]
        for name in node.inputs:
            if name == "parameters" or name.startswith("params:"):
                parts.append(parameter(name))
            else:
                if _is_split(name) and name not in values:
                    values[name] = content(name)
                parts.append(keys.get(name, "") + values.get(name, ""))
        keys |= {name: _digest([name, *parts]) for name in node.outputs}
    return keys


def _parameter_digest(load: Callable[[str], Any], name: str) -> str:
    return "" if name == "params:models_folder" else _digest(_relevant(load(name)))


def _is_split(name: str) -> bool:
    return name.endswith("_split")


def _relevant(value: Any) -> Any:
    """Parameters without those that change no result; of a run what its fingerprint says."""
    if isinstance(value, BaseModel):  # as Kedro validated them; what was not written stays unwritten
        return _relevant(value.model_dump(mode="json", exclude_unset=True))
    if isinstance(value, Mapping):
        if "fingerprint" in value:
            return value["fingerprint"]
        return {str(name): _relevant(inner) for name, inner in value.items() if name not in IRRELEVANT}
    return [_relevant(inner) for inner in value] if isinstance(value, list | tuple) else value


def _report(stale: set[str], pipeline: Pipeline, *, only_missing: bool) -> None:
    """Report results of another plan: those that are made anew, read as they are, or would be kept."""
    made_here, read_here = stale & pipeline.all_outputs(), stale & pipeline.inputs()
    if only_missing and made_here:
        weights = sorted(name for name in made_here if name.endswith(".checkpoints"))
        if weights:
            raise CommandLineError(
                f"{_names(weights)}: made by another plan, and --only-missing-outputs would keep them; "
                "leave it out, or undo the change of parameters or files"
            )
        logger.warning("made by another plan, and kept: %s; %s", _names(made_here), _how_to_make(made_here))
    elif made_here:
        logger.info("made by another plan, and now made anew: %s", _names(made_here))
    if read_here:
        logger.warning("made by another plan, and used as it is: %s; %s", _names(read_here), _how_to_make(read_here))


def _names(entries: Iterable[str]) -> str:
    """The first names, weights before all others, and how many more there are."""
    ordered = sorted(entries, key=lambda name: (not name.endswith(".checkpoints"), name))
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more


def _how_to_make(entries: set[str]) -> str:
    makers = [name for name, made in pipelines.items() if name != "__default__" and entries & made.all_outputs()]
    return f"`{run_command('--pipelines', ','.join(makers))}` makes them anew"


def has_entry(catalog: CatalogProtocol, name: str) -> bool:
    """True if the catalog has an entry of that name and its content is there."""
    dataset = catalog.get(name)
    return dataset is not None and bool(dataset.exists())


def _content_digest(catalog: CatalogProtocol, name: str) -> str:
    """The digest that an entry of ours bears; "" for others, and where it is not there."""
    digest = getattr(catalog.get(name), "content_digest", None)
    return "" if digest is None else str(digest())


def _read(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The keys and digests under which results were made, with what a run that was killed has noted since."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        content = {}
    made, written = dict(content.get("made", {})), dict(content.get("written", {}))
    for name, key, digest in _noted(_journal(path)):
        made[name], written[name] = key, digest
    return made, written


def _journal(path: Path) -> Path:
    """The journal of a run under way, a line per saved result, before all is written in one file."""
    return path.with_name(f"{path.stem}.journal")


def _append(journal: Path, name: str, key: str, digest: str = "") -> None:
    journal.parent.mkdir(parents=True, exist_ok=True)
    line = f"{name} {key} {digest}"
    with journal.open("a", encoding="utf-8") as file:
        file.write(f"{line} {zlib.crc32(line.encode()):08x}\n")


def _noted(journal: Path) -> Iterable[tuple[str, str, str]]:
    """Names, keys and digests; a last line that is cut off is of a result that counts as unknown to its reader."""
    if not journal.is_file():
        return
    lines = journal.read_bytes().split(b"\n")
    for line in lines[:-1]:
        content, _, checksum = line.rpartition(b" ")
        if checksum != f"{zlib.crc32(content):08x}".encode():
            raise DamagedError(journal, "a line is not what was written")
        name, key, digest = [*content.decode().split(" "), ""][:3]  # the last one is not in journals of before
        yield name, key, digest


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
