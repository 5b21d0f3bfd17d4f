"""Random sets of timers: deadlines that coincide, cancelled and re-armed, before the run and from within timers.

What must hold of every set, whatever the real clock did: no timer is early; each is called once, unless it was
cancelled before, and then never; of two, the one that was scheduled first and has the earlier deadline is called first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause, timing
from .._kit.seeds import explored

QUANTUM = 0.0005
"""Seconds between neighbouring deadlines; few of them, so that many coincide."""
MOST_TIMERS = 60

arms = st.tuples(st.just("arm"), st.integers(-4, 12))
cancels = st.tuples(st.just("cancel"), st.integers(0, MOST_TIMERS - 1))
rearms = st.tuples(st.just("re-arm"), st.integers(0, MOST_TIMERS - 1))
bodies = st.lists(st.lists(st.one_of(arms, cancels, rearms), max_size=3), min_size=1, max_size=6)


@dataclass
class Timer:
    """What is known of one timer."""

    number: int
    when: float
    handle: Any = None
    called_at: list[float] = field(default_factory=list)
    position: int = -1
    cancelled: bool = False


class Program:
    """Arms, cancels and re-arms timers on a loop as the operations say, and keeps the record."""

    def __init__(self, loop: Any, operations: list[list[tuple[str, int]]]) -> None:
        self.loop, self.operations = loop, operations
        self.timers: list[Timer] = []
        self.calls = 0
        self.base = loop.time() + 2 * QUANTUM

    def arm(self, quanta: int) -> None:
        if len(self.timers) < MOST_TIMERS:
            timer = Timer(len(self.timers), self.base + quanta * QUANTUM)
            self.timers.append(timer)
            timer.handle = self.loop.call_at(timer.when, self.called, timer)

    def cancel(self, number: int) -> Timer:
        timer = self.timers[number % len(self.timers)]
        timer.handle.cancel()
        if not timer.called_at:
            timer.cancelled = True
        return timer

    def perform(self, operations: list[tuple[str, int]]) -> None:
        for operation, value in operations:
            if operation == "arm":
                self.arm(value)
            elif self.timers:
                timer = self.cancel(value)
                if operation == "re-arm":
                    self.arm(round((timer.when - self.base) / QUANTUM) + 1)

    def called(self, timer: Timer) -> None:
        timer.called_at.append(self.loop.time())
        timer.position = self.calls
        self.calls += 1
        self.perform(self.operations[timer.number % len(self.operations)])

    def run(self) -> None:
        self.loop.call_at(self.base + (12 + MOST_TIMERS) * QUANTUM, self.loop.stop)
        self.loop.run_forever()
        # On a machine that was busy elsewhere, timers that are due by now may have armed one another in that last
        # iteration; each of these iterations calls those of the one before.
        for _ in range(MOST_TIMERS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


@clause("timers.order.any-program")
@given(initial=st.lists(st.one_of(arms, arms, cancels, rearms), min_size=1, max_size=20), operations=bodies)
@explored(60)
def test_random_timers_are_called_as_their_deadlines_say(loop_factory, initial, operations):
    loop = loop_factory()
    try:
        program = Program(loop, operations)
        program.perform(initial)
        program.run()
    finally:
        loop.close()
    for timer in program.timers:
        assert len(timer.called_at) == (0 if timer.cancelled else 1), timer
        assert all(moment >= timer.when - timing.monotonic_resolution for moment in timer.called_at), timer
    called = [timer for timer in program.timers if timer.called_at]
    for earlier in called:
        for later in called[called.index(earlier) + 1 :]:
            assert not (earlier.when < later.when and earlier.position > later.position), (earlier, later)
