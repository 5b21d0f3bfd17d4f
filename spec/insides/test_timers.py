"""The timers in the hands of programs, and clocks that somebody put in the place of the loop's."""

from __future__ import annotations

import asyncio
import heapq

import pytest

from .._kit import clause


@clause("insides.scheduled.shows")
def test_the_list_of_timers_is_a_heap_of_what_is_set(loop):
    assert loop._scheduled == []
    late, soon, sooner = (loop.call_later(delay, len, ()) for delay in (3600, 1800, 900))
    scheduled = loop._scheduled
    assert isinstance(scheduled, list) and len(scheduled) == 3 and set(scheduled) == {late, soon, sooner}
    assert scheduled[0] is sooner and scheduled[0]._when == sooner.when() and sooner._scheduled
    assert loop._scheduled is scheduled
    soonest = loop.call_later(60, len, ())
    assert scheduled[0] is soonest and len(scheduled) == 4
    assert [heapq.heappop(scheduled) for _ in range(4)] == [soonest, sooner, soon, late]


@clause("insides.scheduled.gives")
def test_a_timer_that_was_taken_is_not_run(loop):
    ran = []
    loop.call_later(0.001, ran.append, "taken")
    loop.call_later(0.01, ran.append, "left")
    handle = heapq.heappop(loop._scheduled)
    assert handle._args == ("taken",) and not handle.cancelled()
    loop._run_once()
    assert ran == ["left"]


@clause("insides.scheduled.takes")
def test_a_timer_that_was_put_there_is_run_when_it_is_due(loop):
    ran = []
    loop.call_later(0.02, ran.append, "second")
    heapq.heappush(loop._scheduled, asyncio.TimerHandle(loop.time() + 0.001, ran.append, ("first",), loop))
    heapq.heappush(loop._scheduled, asyncio.TimerHandle(loop.time() + 0.04, ran.append, ("third",), loop))
    while len(ran) < 3:
        loop._run_once()
    assert ran == ["first", "second", "third"]
    assert not loop._scheduled


@clause("insides.scheduled.walk")
def test_timers_may_be_cancelled_while_the_list_is_walked_over(loop):
    ran = []
    for number in range(300):
        loop.call_later(0.001 + number / 1e6, ran.append, number)
    for handle in loop._scheduled:
        if handle._args[0] % 3:
            handle.cancel()
    assert sum(not handle.cancelled() for handle in loop._scheduled) == 100
    while len(ran) < 100:
        loop._run_once()
    assert ran == list(range(0, 300, 3)) and not [handle for handle in loop._scheduled if not handle.cancelled()]


@clause("insides.scheduled.replaced")
def test_a_list_that_somebody_put_in_its_place_is_the_list(loop):
    ran = []
    loop.call_later(3600, ran.append, "gone")
    mine = loop._scheduled = []
    loop.call_later(0.001, ran.append, "mine")
    assert loop._scheduled is mine and len(mine) == 1
    loop._run_once()
    assert ran == ["mine"] and not mine


@clause("insides.scheduled.nonsense")
def test_what_is_no_timer_fails_in_its_turn_and_the_loop_goes_on(loop):
    ran = []
    loop._scheduled.append("x")
    with pytest.raises(AttributeError):
        loop._run_once()
    loop._scheduled.clear()
    loop.call_later(0.001, ran.append, 1)
    loop._run_once()
    assert ran == [1]


class Clock:
    """Behind any clock that a loop could go by instead, which may have begun when the machine did: it would be early,
    which is seen at once, where one that is late would be waited for.
    """

    def __init__(self):
        self.now = 0.25

    def __call__(self, *_):
        return self.now


@clause("insides.clock.replaced")
@pytest.mark.parametrize("how", ["instance", "class", "subclass"])
def test_timers_go_by_a_clock_that_somebody_put_in_the_place_of_the_loops(loop, how):
    clock, ran = Clock(), []
    cls, kept = type(loop), vars(type(loop)).get("time")
    try:
        if how == "instance":
            loop.time = clock
        elif how == "class":
            cls.time = lambda self: clock()
        else:
            loop.__class__ = type("Warped", (cls,), {"time": lambda self: clock()})
        assert loop.time() == 0.25
        handle = loop.call_later(0.5, ran.append, 1)
        assert handle.when() == 0.75
        loop.call_soon(lambda: None)
        loop._run_once()
        assert not ran
        clock.now = 0.75
        loop._run_once()
        assert ran == [1]
    finally:
        if how == "instance":
            del loop.time
        elif how == "subclass":
            loop.__class__ = cls
        elif kept is None:
            del cls.time
        else:
            cls.time = kept
    now = loop.time()
    loop.call_later(0.001, ran.append, 2)
    loop._run_once()
    assert ran == [1, 2] and loop.time() > now, "the loop's own clock again"


@clause("insides.clock.sums")
def test_a_timer_is_due_where_the_sum_of_its_delay_is_off_by_a_rounding_error(loop):
    clock, ran = Clock(), []
    clock.now = 0.1
    loop.time = clock
    loop.call_later(0.2, ran.append, 1)
    clock.now = 0.3
    assert clock.now < 0.1 + 0.2
    loop.call_soon(lambda: None)
    loop._run_once()
    assert ran == [1]
    del loop.time
