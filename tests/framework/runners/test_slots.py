"""The pool of devices over random schedules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferscope.framework.runners.slots import DevicePool

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


@pytest.mark.parametrize("count", [0, 3])
def test_what_can_never_be_granted_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"x: asks for {count} devices of 2"):
        DevicePool(range(2)).request("x", count)
