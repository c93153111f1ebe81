"""The pool of devices over random schedules."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Node, Pipeline

from tiny_project import ROOT
from transferscope.cost import node_costs as cost
from transferscope.framework.config import load_plan
from transferscope.framework.runners import ray_runner
from transferscope.framework.runners.node_progress import Ended, NodeProgress
from transferscope.framework.runners.node_runner import gpus_asked
from transferscope.framework.runners.slots import PATIENCE, DevicePool
from transferscope.framework.runners.urgency import urgency
from transferscope.pipeline_registry import register_pipelines

GPUS = 16

REQUESTS = st.lists(
    st.tuples(st.sampled_from([1, 2, 8]), st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=40
)
"""Devices asked for, time that the work takes, time until the next request comes."""


@given(REQUESTS)
@settings(max_examples=300, deadline=None)
def test_sixteen_devices_and_mixed_requests(requests: list[tuple[int, int, int]]) -> None:
    """Never more than exist, none to two at once, in the order of asking, and nobody waits longer than he must.

    Work takes as long as it says, so a request at the head of the queue waits until enough of those before it have
    ended: the test computes that time by itself, from the order alone.
    """
    pool: DevicePool[int] = DevicePool(range(GPUS))
    arrivals, now = [], 0
    for count, length, gap in requests:
        arrivals.append((now, count, length))
        now += gap
    busy: dict[int, tuple[int, tuple[int, ...]]] = {}  # request -> when it ends, its devices
    started: dict[int, int] = {}
    order: list[int] = []
    for moment in range(now + sum(length for _, length, _ in requests) + 1):
        for key in [key for key, (end, _) in busy.items() if end == moment]:
            del busy[key]
            pool.give_back(key)
        for key, (arrival, count, _) in enumerate(arrivals):
            if arrival == moment:
                pool.request(key, count)
        for key, devices in pool.grant():
            assert len(devices) == arrivals[key][1]
            busy[key] = moment + arrivals[key][2], devices
            started[key] = moment
            order.append(key)
        held = [device for _, devices in busy.values() for device in devices]
        assert len(held) == len(set(held)) <= GPUS
        assert set(held) <= set(range(GPUS))
    assert order == list(range(len(requests)))
    assert [started[key] for key in order] == first_in_first_out(arrivals)


def first_in_first_out(arrivals: list[tuple[int, int, int]]) -> list[int]:
    """When each request starts if it starts as soon as those before it have started and enough of them have ended."""
    starts: list[int] = []
    for arrival, count, _ in arrivals:
        moment = max([arrival, *starts])
        while (
            count
            + sum(other for (_, other, length), start in zip(arrivals, starts, strict=False) if start + length > moment)
            > GPUS
        ):
            moment += 1
        starts.append(moment)
    return starts


def test_a_large_request_is_not_overtaken() -> None:
    """While one of two devices is busy a request of two waits, and a younger request of one waits behind it."""
    pool: DevicePool[str] = DevicePool(range(2))
    pool.request("one", 1)
    assert pool.grant() == [("one", (0,))]
    pool.request("two", 2)
    pool.request("late", 1)
    assert pool.grant() == []
    pool.give_back("one")
    assert pool.grant() == [("two", (0, 1))]
    pool.give_back("two")
    assert pool.grant() == [("late", (0,))]


def test_the_most_urgent_comes_first_and_equals_in_order() -> None:
    """Whatever the order of asking; a large one at the head is waited for, and nobody overtakes it."""
    pool: DevicePool[str] = DevicePool(range(2), {"a": 1.0, "b": 3.0, "c": 3.0, "large": 2.0}.__getitem__)
    for name in ("a", "c", "b"):
        pool.request(name, 1)
    pool.request("large", 2)
    assert pool.grant() == [("c", (0,)), ("b", (1,))]
    pool.give_back("c")
    assert pool.grant() == []
    pool.give_back("b")
    assert pool.grant() == [("large", (0, 1))]


def test_nobody_starves() -> None:
    """Under a stream of more urgent requests of one device, one of all devices is served after so many of them."""
    pool: DevicePool[int] = DevicePool(range(4), lambda key: float(key))
    pool.request(0, 4)
    for key in range(1, 5):
        pool.request(key, 1)
    running = [key for key, _ in pool.grant()]
    served = len(running)
    for key in range(5, 1000):
        pool.give_back(running.pop(0))
        pool.request(key, 1)
        granted = [key for key, _ in pool.grant()]
        if 0 in granted:
            break
        running += granted
        served += len(granted)
    assert granted == [0]
    assert served == PATIENCE


def test_devices_that_come_later_are_granted_too() -> None:
    pool: DevicePool[str] = DevicePool(range(1))
    pool.add(2)
    pool.request("a", 3)
    assert pool.grant() == [("a", (0, 1, 2))]


def chain(names: str, costs: dict[str, float], gpus: dict[str, int]) -> dict[str, float]:
    """Urgency by name of nodes, each of which needs those before its colon: `a b:a c:ab`."""
    nodes = []
    for word in names.split():
        name, _, needed = word.partition(":")
        nodes.append(Node(lambda *_: 0, inputs=list(needed) or None, outputs=name, name=name))
    ranks = urgency(Pipeline(nodes), costs, lambda node: gpus.get(node.name, 0))
    return {node.name: value for node, value in ranks.items()}


def test_urgent_is_what_the_longest_work_hangs_from() -> None:
    """The sum along the longest path, a node's cost shared among its devices; unknown costs count a little."""
    assert chain("a b:a c:a d:bc", {"a": 5, "b": 20, "c": 30, "d": 7}, {"c": 2}) == {"a": 32, "b": 27, "c": 22, "d": 7}
    assert chain("a b:a c", {}, {}) == {"a": 2, "b": 1, "c": 1}


def test_the_papers_study_ends_near_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps, by the pool of the runner on pretended time, end within 5 % of max(longest path, work / N).

    On 1, 2, 4 and 8 GPUs, at the speed of `cost.node_costs`; first in, first out takes longer on eight, where P waits
    for the trainings that need no P.
    """
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    plan = load_plan("paper")
    pipeline = register_pipelines()["__default__"]
    sizes = cost._guessed_sizes(plan)
    monkeypatch.setattr(cost, "_guessed_sizes", lambda _: {**sizes, "imagenet": (1_281_167, 50_000)})
    costs = cost.node_costs(plan)
    for size in (1, 2, 4, 8):
        wished = {node: gpus_asked(node) for node in pipeline.nodes}
        asked = {node: size if wish == "auto" else min(size, int(wish or 1)) for node, wish in wished.items()}
        lasts = {node: costs.get(node.name, 0.0) / asked[node] for node in pipeline.nodes}
        ends: dict[Node, float] = {}
        for node in pipeline.nodes:
            ends[node] = lasts[node] + max((ends[parent] for parent in pipeline.node_dependencies[node]), default=0)
        bound = max(max(ends.values()), sum(lasts[node] * asked[node] for node in lasts) / size)
        urgent = urgency(pipeline, costs, asked.__getitem__)
        assert simulated(pipeline, asked, lasts, size, urgent.__getitem__) <= 1.05 * bound, size
        on_ray = simulated_on_ray(pipeline, asked, lasts, size, urgent.__getitem__, monkeypatch)
        assert on_ray <= 1.05 * bound, size
        if size == 8:
            assert simulated(pipeline, asked, lasts, size, lambda _: 0.0) > 1.05 * bound


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("waits", [1, 3])
def test_a_study_whose_best_schedule_is_known(size: int, waits: int) -> None:
    """A source that takes long, runs that start from it, and as many others as fill the other GPUs meanwhile.

    By construction no GPU need ever idle: the others go beside the source, and after it those that start from it.
    First in, first out starts the source after the others that were asked for before it, and ends later.
    """
    length, after = 12, 2 * size
    others = [Node(lambda: 0, None, f"a{i}", name=f"a{i}", tags="gpus-1") for i in range((size - 1) * length)]
    source = Node(lambda: 0, None, "p", name="p", tags="gpus-1")
    started = [Node(lambda _: 0, "p", f"q{i}", name=f"q{i}", tags="gpus-1") for i in range(after * waits)]
    pipeline = Pipeline([*others, source, *started])
    lasts = {node: float(length if node is source else 1) for node in pipeline.nodes}
    asked = dict.fromkeys(pipeline.nodes, 1)
    best = length + 2 * waits
    assert sum(lasts.values()) == best * size
    urgent = urgency(pipeline, {node.name: lasts[node] for node in lasts}, asked.__getitem__)
    assert simulated(pipeline, asked, lasts, size, urgent.__getitem__) == best
    assert simulated(pipeline, asked, lasts, size, lambda _: 0.0) > best


def simulated(
    pipeline: Pipeline, asked: dict[Node, int], lasts: dict[Node, float], size: int, order: Callable[[Node], float]
) -> float:
    """When the last step ends; those without a tag run on cores beside the GPUs."""
    gpus: DevicePool[Node] = DevicePool(range(size), order)
    cores: DevicePool[Node] = DevicePool(range(16), order)
    pools = {node: cores if gpus_asked(node) is None else gpus for node in pipeline.nodes}
    steps, now = NodeProgress(pipeline), 0.0
    running: list[tuple[float, Node]] = []
    while not steps.are_over:
        for node in steps.take_ready():
            pools[node].request(node, asked[node])
        for node, _ in (*gpus.grant(), *cores.grant()):
            steps.start(node)
            heapq.heappush(running, (now + lasts[node], node))
        now, node = heapq.heappop(running)
        pools[node].give_back(node)
        steps.end(Ended(node, lasts[node]))
    return now


def simulated_on_ray(
    pipeline: Pipeline, asked: dict[Node, int], lasts: dict[Node, float], size: int, order: Callable[[Node], float],
    monkeypatch: pytest.MonkeyPatch,
) -> float:  # fmt: skip
    """When the last node ends with the runner's own `Room`, on a cluster that starts what it has in any order."""
    monkeypatch.setattr(ray_runner, "machines_of", lambda _: [{"CPU": 64.0, "GPU": float(size)}])
    on_gpu = {node for node in pipeline.nodes if gpus_asked(node) is not None}
    room = ray_runner.Room(None, asked, on_gpu, order)
    free, waiting, generator = {True: size, False: 64}, list[Node](), np.random.default_rng(0)
    steps, now = NodeProgress(pipeline), 0.0
    running: list[tuple[float, Node]] = []
    while not steps.are_over:
        for node in steps.take_ready():
            room.request(node)
        waiting += room.grant()
        for index in generator.permutation(len(waiting)):
            node = waiting[index]
            if asked[node] <= free[node in on_gpu]:
                free[node in on_gpu] -= asked[node]
                steps.start(node)
                heapq.heappush(running, (now + lasts[node], node))
        waiting = [node for node in waiting if node not in {started for _, started in running}]
        now, node = heapq.heappop(running)
        free[node in on_gpu] += asked[node]
        room.give_back(node)
        steps.end(Ended(node, lasts[node]))
    return now


@pytest.mark.parametrize("count", [0, 3])
def test_what_can_never_be_granted_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"x: asks for {count} devices of 2"):
        DevicePool(range(2)).request("x", count)
