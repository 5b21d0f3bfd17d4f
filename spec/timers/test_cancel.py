"""Cancelling timers, and what cancelled ones cost."""

from __future__ import annotations

import gc
import os
import resource
import sys
import weakref

import pytest

from .._kit import clause, peers


class Argument:
    """Something to watch the life of."""


def memory() -> int:
    """Bytes of memory in use by this process; on a platform without /proc, the most it ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@clause("timers.cancel.not-called")
@pytest.mark.parametrize("delay", [-1, 0, 0.005])
def test_a_cancelled_timer_is_not_called(loop, delay):
    seen = []
    kept = loop.call_later(delay, seen.append, "kept")
    dropped = loop.call_later(delay, seen.append, "dropped")
    at = loop.call_at(loop.time() + delay, seen.append, "dropped")
    assert not dropped.cancelled()
    dropped.cancel()
    at.cancel()
    assert dropped.cancelled() and at.cancelled() and not kept.cancelled()
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert seen == ["kept"]


@clause("timers.cancel.from-within")
def test_a_due_timer_cancels_another_of_its_iteration(loop, tick):
    seen = []
    now = loop.time()

    def first():
        seen.append("first")
        second.cancel()

    loop.call_at(now - 3, first)
    second = loop.call_at(now - 2, seen.append, "second")
    loop.call_at(now - 1, seen.append, "third")
    tick(2)
    assert seen == ["first", "third"]
    assert second.cancelled()


@clause("timers.cancel.twice")
def test_cancelling_again_or_too_late_has_no_effect(loop, tick):
    seen = []

    def own():
        seen.append("own")
        assert own_handle.cancel() is None

    called = loop.call_later(-2, seen.append, "called")
    own_handle = loop.call_later(-1, own)
    pending = loop.call_later(3600, seen.append, "pending")
    assert pending.cancel() is None and pending.cancel() is None
    tick(2)
    assert seen == ["called", "own"]
    assert called.cancel() is None and own_handle.cancel() is None and pending.cancel() is None
    tick(2)
    assert seen == ["called", "own"]


@clause("timers.cancel.late-spares-later-ones")
@pytest.mark.parametrize("ended", ["called", "cancelled"])
def test_a_timer_that_has_ended_cancels_none_that_was_set_since(loop, tick, ended):
    seen = []
    old = [loop.call_later(-1, seen.append, "old") for _ in range(10)]
    if ended == "cancelled":
        for handle in old:
            handle.cancel()
    tick(2)
    expected = ["old"] * 10 if ended == "called" else []
    assert seen == expected
    new = [loop.call_later(-1, seen.append, "new") for _ in range(10)]
    for handle in old:
        handle.cancel()
    assert not any(handle.cancelled() for handle in new)
    tick(2)
    assert seen == expected + ["new"] * 10


@clause("timers.cancel.and-rearm")
def test_only_the_last_scheduling_of_a_rearmed_timer_counts(loop, dice):
    seen = []
    names = list(range(20))
    begin = loop.time() + 0.01
    handles = {}
    for round_number in range(50):
        for name in names:
            if name in handles:
                handles[name].cancel()
            last = round_number == 49
            due = begin + (name * 0.0005 if last else dice.uniform(0, 10))
            handles[name] = loop.call_at(due, seen.append, name)
    loop.call_at(begin + 0.03, loop.stop)
    loop.run_forever()
    assert seen == names


@clause("timers.cancel.and-rearm")
def test_a_watchdog_that_is_fed_does_not_bite(loop):
    seen = []
    watchdog = loop.call_later(0.2, seen.append, "bitten")

    def feed(left):
        nonlocal watchdog
        watchdog.cancel()
        if left:
            watchdog = loop.call_later(0.2, seen.append, "bitten")
            loop.call_later(0.001, feed, left - 1)
        else:
            loop.stop()

    loop.call_soon(feed, 50)
    loop.run_forever()
    assert seen == []


@clause("timers.cancel.sole")
def test_a_loop_whose_only_timer_was_cancelled_is_woken(loop):
    loop.call_later(0.01, loop.stop).cancel()
    seen = []

    def elsewhere():
        loop.call_soon_threadsafe(seen.append, "woken")
        loop.call_soon_threadsafe(loop.stop)

    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == ["woken"]


@clause("timers.cancel.lets-go")
def test_cancelling_lets_callback_and_arguments_go_at_once(loop):
    argument = Argument()
    watched = weakref.ref(argument)
    handle = loop.call_later(3600, lambda _: None, argument)
    del argument
    assert watched() is not None
    handle.cancel()
    gc.collect()
    assert watched() is None


@clause("timers.handle.lets-go")
def test_nothing_is_kept_of_a_timer_that_was_called(loop, tick):
    argument = Argument()
    watched = weakref.ref(argument)
    loop.call_later(-1, lambda _: None, argument)
    del argument
    tick()
    gc.collect()
    assert watched() is None


@clause("timers.cancel.bounded-memory")
@pytest.mark.timeout(90)
def test_a_million_cancelled_timers_hold_no_memory(loop, tick):
    def churn(rounds):
        for _ in range(rounds):
            for handle in [loop.call_later(3600 + n, len, ()) for n in range(1000)]:
                handle.cancel()
            tick()

    live = loop.call_later(3600, loop.stop)
    churn(50)  # whatever the allocator takes for a round, and a table that grows to its size
    gc.collect()
    before = memory()
    churn(1000)
    gc.collect()
    # A million timers would take more than 64 bytes each.
    assert memory() - before < 16 << 20
    assert not live.cancelled()
    live.cancel()


@clause("timers.cancel.keeps-others")
def test_timers_between_many_cancelled_ones_are_called_in_order(loop, tick, dice):
    seen = []
    now = loop.time()
    order = list(range(3000))
    dice.shuffle(order)
    handles = {n: loop.call_at(now + 0.5 + n * 1e-5, seen.append, n) for n in order}
    kept = list(range(0, 3000, 500))  # five milliseconds apart: the order of close ones is another clause
    for n in order:
        if n not in kept:
            handles[n].cancel()
    tick(3)
    loop.call_at(now + 0.7, loop.stop)
    loop.run_forever()
    assert seen == kept
