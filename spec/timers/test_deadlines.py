"""When timers are called: never early, not much late, and not starved."""

from __future__ import annotations

import select
import statistics
import threading
import time

import pytest

from .._kit import clause, peers, timing

# A deadline is reached when the clock shows it; a clock may be read short of it by its resolution.
EARLY = timing.monotonic_resolution


def busy(seconds):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        pass


@clause("timers.deadline.never-early")
@pytest.mark.parametrize("method", ["call_at", "call_later"])
def test_no_timer_is_early(loop, method, dice):
    early = []
    left = 300

    def called(due):
        nonlocal left
        now = loop.time()
        if now < due - EARLY:
            early.append(due - now)
        left -= 1
        if not left:
            loop.stop()

    for _ in range(left):
        delay = dice.uniform(0.0001, 0.1)
        due = loop.time() + delay
        if method == "call_later":
            loop.call_later(delay, called, due)
        else:
            loop.call_at(due, called, due)
    loop.run_forever()
    assert early == []


@clause("timers.clock.at-call")
def test_the_clock_is_past_when_as_a_timer_is_called(loop):
    early = []
    handles = {}

    def called(n):
        if loop.time() < handles[n].when() - EARLY:
            early.append(handles[n].when() - loop.time())

    for n in range(100):
        handles[n] = loop.call_later(n * 0.00031, called, n)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert early == []


@clause("timers.deadline.never-early")
def test_no_timer_of_a_chain_is_early(loop):
    early = []

    def called(due, left):
        now = loop.time()
        if now < due - EARLY:
            early.append(due - now)
        if left:
            due = loop.time() + 0.0007
            loop.call_at(due, called, due, left - 1)
        else:
            loop.stop()

    loop.call_soon(called, 0.0, 100)
    loop.run_forever()
    assert early == []


@clause("timers.deadline.never-early")
def test_no_timer_is_early_by_any_monotonic_clock(loop):
    early = []

    def called(armed, delay, left):
        waited = time.monotonic() - armed
        if waited < delay - EARLY:
            early.append(delay - waited)
        if left:
            loop.call_later(0.0013, called, time.monotonic(), 0.0013, left - 1)
        else:
            loop.stop()

    loop.call_soon(called, 0.0, 0.0, 60)
    loop.run_forever()
    assert early == []


@clause("timers.deadline.reached", "timers.deadline.exactly-once")
def test_timers_of_an_idle_loop_are_called_once_each(loop, tick):
    seen = []
    for n, delay in enumerate((0.001, 0.005, 0.02)):
        loop.call_later(delay, seen.append, n)
    loop.call_later(0.03, loop.stop)
    begun = loop.time()
    loop.run_forever()
    assert loop.time() - begun >= 0.03 - EARLY
    assert seen == [0, 1, 2]
    tick(3)
    assert seen == [0, 1, 2]


@clause("timers.deadline.close")
def test_half_of_the_timers_of_a_quiet_loop_are_close_to_their_deadline(loop):
    late = []
    count = 60

    def called(due):
        late.append(loop.time() - due)
        if len(late) == count:
            loop.stop()
        else:
            arm()

    def arm():
        due = loop.time() + 0.0023
        loop.call_at(due, called, due)

    arm()
    loop.run_forever()
    assert statistics.median(late) < 0.003 + statistics.median(_late_without_a_loop(count))


def _late_without_a_loop(count):
    """By how much the kernel itself is late, on a machine that may be busy: seconds, of `count` waits."""
    late = []
    for _ in range(count):
        due = time.monotonic() + 0.0023
        select.select([], [], [], 0.0023)
        late.append(time.monotonic() - due)
    return late


@clause("timers.deadline.now-is-due")
@pytest.mark.parametrize("behind", [0.0, 1e-9, 1e-3, 10.0])
def test_a_deadline_that_is_now_or_past_is_due_in_the_next_iteration(loop, tick, behind):
    seen = []
    loop.call_at(loop.time() - behind, seen.append, "at")
    loop.call_later(-behind, seen.append, "later")
    tick()
    assert sorted(seen) == ["at", "later"]


@clause("timers.deadline.missed-while-busy")
def test_deadlines_missed_by_a_busy_callback_are_due_next(loop, tick):
    seen = []
    loop.call_soon(busy, 0.02)
    for n in range(5):
        loop.call_later(0.002 * n, seen.append, n)
    tick(2)
    assert seen == [0, 1, 2, 3, 4]


@clause("timers.deadline.missed-while-stopped")
def test_a_timer_outlives_the_run_it_was_scheduled_in(loop, tick):
    # Where the machine is so busy that the timer was due in the first run, a later one decides.
    for delay in (0.02, 0.1, 0.5):
        seen = []
        due = loop.time() + delay
        loop.call_at(due, seen.append, "due")
        tick(3)
        stopped = loop.time()
        if stopped < due:
            assert seen == []
        busy(delay * 1.5)
        tick()
        assert seen == ["due"]
        if stopped < due:
            break


@clause("timers.deadline.woken-for-earlier")
def test_another_thread_has_an_idle_loop_schedule_an_earlier_timer(loop):
    late = loop.call_later(3600, loop.stop)
    idle = threading.Event()

    def elsewhere():
        assert idle.wait(peers.TIMEOUT)
        loop.call_soon_threadsafe(loop.call_later, 0.005, loop.stop)

    loop.call_soon(idle.set)
    with peers.thread(elsewhere):
        loop.run_forever()
    late.cancel()
    assert loop.time() < late.when()


@clause("timers.deadline.not-inline")
@pytest.mark.parametrize("delay", [0, 0.0, -1, float("-inf")])
def test_scheduling_a_timer_does_not_call_it(loop, tick, delay):
    seen = []
    during = []

    def within():
        loop.call_later(delay, seen.append, "later")
        loop.call_at(loop.time() + delay, seen.append, "at")
        during.extend(seen)

    loop.call_later(delay, seen.append, "before")
    assert seen == []
    loop.call_soon(within)
    tick(3)
    assert set(during) <= {"before"}
    assert sorted(seen) == ["at", "before", "later"]


@clause("timers.fairness.under-chain")
def test_a_chain_of_callbacks_does_not_keep_a_timer_waiting(loop):
    called_at = []
    links_after = 0

    def chain():
        nonlocal links_after
        if loop.time() > due:
            links_after += 1
        if called_at or links_after > 5000:
            loop.stop()
        else:
            loop.call_soon(chain)

    due = loop.time() + 0.005
    loop.call_at(due, lambda: called_at.append(links_after))
    loop.call_soon(chain)
    loop.run_forever()
    assert called_at and called_at[0] <= 16


@clause("timers.fairness.io-under-timers")
@pytest.mark.parametrize("delay", [0, -1])
def test_a_timer_that_rearms_itself_does_not_keep_a_reader_waiting(loop, delay):
    ours, theirs = peers.pair()
    turns = 0
    read_at = []

    def rearm():
        nonlocal turns
        turns += 1
        if read_at or turns > 5000:
            loop.stop()
        else:
            loop.call_later(delay, rearm)

    def readable():
        read_at.append(turns)
        loop.remove_reader(ours.fileno())

    with ours, theirs:
        theirs.sendall(b"x")
        loop.add_reader(ours.fileno(), readable)
        loop.call_later(delay, rearm)
        loop.run_forever()
    assert read_at and read_at[0] <= 16


@clause("timers.clock.monotonic")
def test_the_clock_is_a_float_that_never_goes_back(loop, tick):
    readings = [loop.time() for _ in range(2000)]
    for _ in range(20):
        loop.call_soon(lambda: readings.append(loop.time()))
        tick()
    assert all(type(reading) is float for reading in readings)
    assert readings == sorted(readings)


@clause("timers.clock.current")
def test_the_clock_advances_within_a_callback(loop, tick):
    passed = []

    def callback():
        before = loop.time()
        busy(0.02)
        passed.append(loop.time() - before)

    loop.call_soon(callback)
    tick()
    # The two clocks may be read with a resolution of a millisecond each.
    assert passed[0] >= 0.018


@clause("timers.clock.stands-still")
def test_a_timer_due_now_does_not_wait_for_the_clock_to_advance(loop):
    late = []

    def schedule(left):
        seen = []
        loop.call_at(loop.time(), seen.append, "called")
        loop.call_soon(loop.call_soon, look, seen, left)

    def look(seen, left):
        # Two iterations later, whether an iteration begins or ends with its timers.
        if seen != ["called"]:
            late.append(left)
        if left:
            schedule(left - 1)
        else:
            loop.stop()

    loop.call_soon(schedule, 500)
    loop.run_forever()
    assert late == []


@clause("timers.clock.overridden")
def test_timers_follow_a_clock_that_a_subclass_overrides(loop_factory):
    plain = loop_factory()
    kind = type(plain)
    plain.close()

    class Virtual(kind):
        now = 1000.0

        def time(self):
            return self.now

    def tick():
        loop.call_soon(loop.stop)
        loop.run_forever()

    loop = Virtual()
    try:
        seen = []
        loop.call_later(5, seen.append, "late")
        loop.call_later(1, seen.append, "early")
        loop.call_later(0, seen.append, "due")
        for _ in range(5):
            tick()
        assert seen == ["due"]
        loop.now += 1
        tick()
        assert seen == ["due", "early"]
        loop.now += 4
        tick()
        assert seen == ["due", "early", "late"]
    finally:
        loop.close()
