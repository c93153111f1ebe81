"""The Ray cluster of a run: one that is there, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from transferscope.framework.command_line import CommandLineError
from transferscope.system.temporaries import work_folder

KNOCK_SECONDS = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`, else to the one that this machine has, else to one that ends with us.

    One line where Ray is not installed or nothing answers.
    """
    # Workers use the environment that is there; Ray would build one anew on each, where `uv run` has started this.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise CommandLineError(
            "RayRunner needs Ray: `uv run --extra ray kedro run ...`, or without uv: pip install -e '.[ray]'"
        ) from None
    with ExitStack() as stack:
        address = address or _known()
        if address is None:
            _start(ray, stack)
        else:
            _join(ray, address)
        stack.callback(ray.shutdown)
        yield ray


def machines_of(ray: Any) -> list[dict[str, float]]:
    """The resources of each machine that is there."""
    return [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]


def _known() -> str | None:
    """The cluster that RAY_ADDRESS names, or that `ray start` has left a note of, if it still answers."""
    from ray._private.services import get_ray_address_from_environment

    unnamed: Any = None
    address = get_ray_address_from_environment(unnamed, None)
    if address and not os.environ.get("RAY_ADDRESS"):
        try:
            _knock(address)
        except OSError:  # it has ended
            return None
    return address


def _start(ray: Any, stack: ExitStack) -> None:
    """A cluster of this machine alone, which no other reaches; its files go when it ends."""
    from ray._private import ray_constants

    folder = stack.enter_context(work_folder())
    # Ray's processes listen on all interfaces, unless their address is that of loopback; and it takes another one,
    # whatever it is given, unless it may not form a cluster.
    may_form, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, _temp_dir=str(folder))
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_form


def _join(ray: Any, address: str) -> None:
    try:
        _knock(address)
        # One attempt, of 40 s: at a port where something else listens it would make twenty.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        ray.init(address=address, logging_level=logging.WARNING)
    except Exception as error:  # of many kinds: sockets, time-outs, versions that differ
        reason = " ".join(str(error).split())[:200]
        raise CommandLineError(
            f"--runner-params address={address}: no Ray cluster answers there ({reason}); "
            "start one with `ray start --head`, or leave the address out"
        ) from None


def _knock(address: str) -> None:
    """OSError where nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()
