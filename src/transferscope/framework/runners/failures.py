"""Errors of nodes that failed, and the command that repeats them."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click

from transferscope.framework.config import present_source
from transferscope.framework.runners.node_progress import NodeProgress
from transferscope.system.errors import UserError


class NodesFailed(RuntimeError):
    """Some nodes failed; the others were done. One line; the errors themselves are in `progress`."""

    def __init__(self, progress: NodeProgress) -> None:
        self.progress = progress
        if len(progress.failed) == 1:
            (node, error), *_ = progress.failed.items()
            message = reason(error) if users_mistake(error) else f"{node.name}: {reason(error)}"
        else:
            message = f"{len(progress.failed)} nodes failed: " + ", ".join(node.name for node in progress.failed)
        super().__init__(message)


STORAGE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM)
"""Error numbers of a file system that is full or denies access."""


def users_mistake(error: BaseException) -> UserError | None:
    """The user's mistake that an error is, or comes from: one that says so, or storage that takes nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            return UserError(f"{cause.filename or 'storage'}: {cause.strerror}")
        cause = cause.__cause__
    return None


class RemoteError(RuntimeError):
    """An error of a node in another process or on another machine, in one line.

    Its traceback is in the log of the run, or of that machine.
    """


def reason(error: BaseException) -> str:
    """An error in one line; of a user's mistake its message alone."""
    mistake = users_mistake(error)
    if mistake is not None:
        return " ".join(str(mistake).split())
    kind = "" if isinstance(error, RemoteError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())}".rstrip(": ")


LISTS = {
    "pipeline_names": "--pipelines",
    "tags": "--tags",
    "namespaces": "--namespaces",
    "node_names": "--nodes",
    "to_nodes": "--to-nodes",
    "from_inputs": "--from-inputs",
    "to_outputs": "--to-outputs",
}
"""Options of `kedro run` by Kedro's names for them."""


def run_command(*options: str) -> str:
    """`kedro run` with options, in the present environment and with its parameters of the command line."""
    compared = _comparison()
    if compared is not None:  # which recognises what is finished
        return compared
    source = present_source()
    words = ["kedro", "run"]
    if source is not None:
        words += ["--env", source.env] if source.env else []
        words += _params("--params", source.runtime_params)
    return shlex.join([*words, *options])


def repeat_command(progress: NodeProgress, options: Mapping[str, Any]) -> str:
    """The command that runs what failed and what was skipped for it, with the options of the run that failed.

    options: by Kedro's names; `runner` only where another than the default was chosen.
    """
    compared = _comparison()
    if compared is not None:
        return compared
    words = ["kedro", "run"]
    for name, option in (("env", "--env"), ("conf_source", "--conf-source"), ("runner", "--runner")):
        if options.get(name):
            words += [option, str(options[name])]
    for name, option in (("runner_params", "--runner-params"), ("runtime_params", "--params")):
        words += _params(option, options.get(name) or {})
    for name, option in LISTS.items():
        if options.get(name):
            words += [option, ",".join(options[name])]
    if options.get("only_missing_outputs"):
        words.append("--only-missing-outputs")
    words += ["--from-nodes", ",".join(node.name for node in progress.failed)]
    return shlex.join(words)


def _comparison() -> str | None:
    """The command as it was typed, where it is `kedro compare`: its study is too long for options of `kedro run`."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "compare":
        return None
    return shlex.join(["kedro", *sys.argv[1:]])


def _params(option: str, values: Mapping[str, Any]) -> list[str]:
    """Parameters as on the command line, behind their option; nothing where there are none."""
    shown = [f"{key}={'null' if value is None else value}" for key, value in _flat(values).items()]
    return [option, ",".join(shown)] if shown else []


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat
