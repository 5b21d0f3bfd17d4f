"""In which order timers are called, among themselves and among other callbacks."""

from __future__ import annotations

import itertools

import pytest

from .._kit import clause, peers


@clause("timers.order.call-at-and-later")
def test_call_at_and_call_later_share_one_order(loop):
    seen = []
    begin = loop.time() + 0.005
    for n in (5, 2, 0, 4, 1, 3):
        due = begin + n * 0.005
        if n % 2:
            loop.call_at(due, seen.append, n)
        else:
            loop.call_later(due - loop.time(), seen.append, n)
    loop.call_at(begin + 0.035, loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4, 5]


@clause("timers.order.by-deadline")
def test_timers_are_called_in_the_order_of_their_deadlines(loop, dice):
    seen = []
    order = list(range(50))
    dice.shuffle(order)
    begin = loop.time() + 0.005
    for n in order:
        loop.call_at(begin + n * 0.0005, seen.append, n)
    loop.call_at(begin + 0.05, loop.stop)
    loop.run_forever()
    assert seen == list(range(50))


@clause("timers.order.by-deadline")
def test_overdue_timers_are_called_in_the_order_of_their_deadlines(loop, tick, dice):
    seen = []
    order = list(range(200))
    dice.shuffle(order)
    now = loop.time()
    for n in order:
        loop.call_at(now - 1 + n * 1e-6, seen.append, n)
    tick()
    assert seen == list(range(200))


@clause("timers.order.by-deadline")
def test_deadlines_a_microsecond_apart_are_in_order(loop, dice):
    seen = []
    begin = loop.time() + 0.01
    order = list(range(300))
    dice.shuffle(order)
    for n in order:
        loop.call_at(begin + n * 1e-6, seen.append, n)
    loop.call_at(begin + 0.01, loop.stop)
    loop.run_forever()
    assert seen == list(range(300))


@clause("timers.order.negative-by-deadline")
def test_negative_delays_are_in_the_order_of_their_deadlines(loop, tick):
    seen = []
    for delay in (-1, -3, -2.5, -0.5, -100, -2):
        loop.call_later(delay, seen.append, delay)
    tick()
    assert seen == [-100, -3, -2.5, -2, -1, -0.5]


@clause("timers.order.negative-by-deadline")
def test_a_negative_delay_comes_before_a_due_timer_scheduled_earlier(loop, tick):
    seen = []
    loop.call_at(loop.time(), seen.append, "now")
    loop.call_later(-5, seen.append, "past")
    tick()
    assert seen == ["past", "now"]


@clause("timers.order.equal-deadlines")
def test_timers_with_one_deadline_are_all_called_in_one_iteration(loop, tick):
    seen = []
    due = loop.time() + 0.01

    def called(n):
        if not seen:
            loop.call_soon(seen.append, "next iteration")
        seen.append(n)

    for n in range(500):
        loop.call_at(due, called, n)
    loop.call_at(due + 0.01, loop.stop)
    loop.run_forever()
    tick()  # on a busy machine the stop is due in the iteration of the others
    assert sorted(event for event in seen if event != "next iteration") == list(range(500))
    assert seen.index("next iteration") == 500


@clause("timers.order.equal-by-insertion")
def test_timers_with_one_deadline_are_called_in_the_order_of_scheduling(loop, tick):
    seen = []
    now = loop.time()
    for n in range(100):
        loop.call_at(now - n % 3, seen.append, (-(n % 3), n))
    tick()
    assert seen == sorted(seen)


@clause("timers.order.after-ready")
def test_a_due_timer_comes_behind_ready_callbacks(loop, tick):
    seen = []
    loop.call_later(-1, seen.append, "timer")
    loop.call_soon(seen.append, "ready")
    loop.call_later(0, seen.append, "timer without delay")
    loop.call_soon(seen.append, "ready too")
    tick(2)
    assert seen == ["ready", "ready too", "timer", "timer without delay"]


@clause("timers.order.after-io")
def test_a_due_timer_comes_behind_the_io_of_its_iteration(loop, tick):
    ours, theirs = peers.pair()
    seen = []
    with ours, theirs:
        theirs.sendall(b"x")
        loop.add_reader(ours.fileno(), lambda: (seen.append("readable"), loop.remove_reader(ours.fileno())))
        loop.call_later(-1, seen.append, "timer")
        tick(3)
    assert seen == ["readable", "timer"]


@clause("timers.order.rearmed-next-iteration")
@pytest.mark.parametrize("delay", [0, -1, float("-inf")])
def test_a_timer_rearmed_without_delay_is_called_in_the_next_iteration(loop, delay):
    seen = []

    def rearm(n):
        seen.append(n)
        loop.call_soon(seen.append, f"between {n} and {n + 1}")
        if n < 4:
            loop.call_later(delay, rearm, n + 1)
        else:
            loop.stop()

    loop.call_later(delay, rearm, 0)
    loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [event for event in seen if isinstance(event, int)] == [0, 1, 2, 3, 4]
    # Had one iteration called two of them, they would stand side by side.
    assert all(isinstance(a, str) or isinstance(b, str) for a, b in itertools.pairwise(seen))


@clause("timers.stop.lets-due-run")
def test_stop_from_a_timer_lets_the_others_that_are_due_run(loop):
    seen = []
    now = loop.time()
    loop.call_at(now - 2, loop.stop)
    loop.call_at(now - 1, seen.append, "due")
    late = loop.call_at(now + 3600, seen.append, "late")
    loop.run_forever()
    assert seen == ["due"]
    late.cancel()


@clause("timers.load.many")
@pytest.mark.timeout(60)
def test_a_hundred_thousand_timers_are_all_called(loop, dice):
    count = 100_000
    seen = []
    deadlines = list(range(count))
    dice.shuffle(deadlines)
    begin = loop.time() - 1
    for n in deadlines:
        loop.call_at(begin + n * 1e-6, seen.append, n)
    loop.call_at(begin + 1.1, loop.stop)
    loop.run_forever()
    assert sorted(seen) == list(range(count))
