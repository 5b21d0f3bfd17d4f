"""What call_later and call_at take and return."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import decimal
import fractions
import math

import pytest

from .._kit import clause, peers

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def arm(loop, method, delay, *args, **kwargs):
    return getattr(loop, method)(delay if method == "call_later" else loop.time() + delay, *args, **kwargs)


METHODS = pytest.mark.parametrize("method", ["call_later", "call_at"])


@clause("timers.handle.type")
@METHODS
@pytest.mark.parametrize("delay", [3600, 0, 0.0, -1, math.inf])
def test_scheduling_returns_a_timer_handle(loop, method, delay):
    handle = arm(loop, method, delay, len, ())
    assert isinstance(handle, asyncio.TimerHandle) and isinstance(handle, asyncio.Handle)
    assert not handle.cancelled()


@clause("timers.handle.when")
@pytest.mark.parametrize("offset", [3600, 0, -1, 0.1])
def test_when_is_the_time_given_to_call_at(loop, tick, offset):
    when = loop.time() + offset
    handle = loop.call_at(when, len, ())
    assert handle.when() == when
    tick(2)
    assert handle.when() == when
    handle.cancel()
    assert handle.when() == when


@clause("timers.handle.when")
@pytest.mark.parametrize("delay", [3600, 0, -1, 0.1])
def test_when_of_call_later_is_the_delay_from_now(loop, tick, delay):
    before = loop.time()
    handle = loop.call_later(delay, len, ())
    after = loop.time()
    assert before + delay <= handle.when() <= after + delay
    handle.cancel()
    assert before + delay <= handle.when() <= after + delay


@clause("timers.handle.when-as-given")
@pytest.mark.parametrize("when", [10**9, 1e9, True, fractions.Fraction(10**10, 3), 2**60 + 1])
def test_when_is_the_very_number_that_was_given(loop, when):
    handle = loop.call_at(when, len, ())
    assert handle.when() is when
    assert f"when={when}" in repr(handle)
    handle.cancel()
    assert handle.when() is when and hash(handle) == hash(when)


@clause("timers.handle.when-as-given")
def test_a_delay_is_added_as_python_adds_it(loop):
    handle = loop.call_later(fractions.Fraction(3600), len, ())
    assert type(handle.when()) is float
    with pytest.raises(TypeError):
        loop.call_later(decimal.Decimal(1), len, ())


@clause("timers.handle.repr")
@METHODS
def test_the_repr_names_callback_deadline_and_fate(loop, method):
    def some_callback():
        pass

    handle = arm(loop, method, 3600, some_callback)
    assert "some_callback" in repr(handle) and f"when={handle.when()}" in repr(handle)
    assert "cancelled" not in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


@clause("timers.handle.ordering")
def test_timer_handles_compare_by_deadline(loop):
    now = loop.time()
    late, early = loop.call_at(now + 3601, len, ()), loop.call_at(now + 3600, len, ())
    assert early < late and late > early and early <= late and late >= early
    assert sorted([late, early]) == [early, late]
    assert early != late and early == early
    assert len({early, late}) == 2


@clause("timers.handle.args")
@METHODS
def test_arguments_reach_the_callback_and_keywords_are_refused(loop, tick, method):
    seen = []
    argument = object()
    arm(loop, method, -1, lambda *args: seen.append(args), argument, None, 3)
    arm(loop, method, -0.5, lambda *args: seen.append(args))
    with pytest.raises(TypeError):
        arm(loop, method, 0, seen.append, item=1)
    with pytest.raises(TypeError):
        arm(loop, method, 0)
    tick(2)
    assert seen == [(argument, None, 3), ()] and seen[0][0] is argument


@clause("timers.context.copied")
@METHODS
def test_without_a_context_the_current_one_is_copied(loop, tick, method):
    seen = []

    def callback():
        seen.append(var.get())
        var.set("by the callback")

    var.set("when scheduled")
    arm(loop, method, 0, callback)
    arm(loop, method, -1, callback)
    var.set("afterwards")
    tick(2)
    assert seen == ["when scheduled"] * 2
    assert var.get() == "afterwards"


@clause("timers.context.given")
@METHODS
def test_a_given_context_is_the_one_the_timer_runs_in(loop, tick, method):
    context = contextvars.copy_context()
    context.run(var.set, "in the context")
    seen = []

    def callback():
        seen.append(var.get())
        var.set("by the callback")

    arm(loop, method, 0, callback, context=context)
    tick(2)
    assert seen == ["in the context"]
    assert context[var] == "by the callback" and var.get() == "unset"


@clause("timers.context.handle-knows")
@METHODS
@pytest.mark.parametrize("delay", [3600, 0])
def test_a_timer_handle_knows_its_context(loop, method, delay):
    given = contextvars.copy_context()
    assert arm(loop, method, delay, len, (), context=given).get_context() is given
    var.set("current")
    assert arm(loop, method, delay, len, ()).get_context()[var] == "current"


@clause("timers.delay.none")
@METHODS
def test_none_is_no_delay(loop, tick, method):
    seen = []
    with pytest.raises(TypeError):
        getattr(loop, method)(None, seen.append, 1)
    tick()
    assert seen == []


@clause("timers.delay.not-a-number")
@pytest.mark.parametrize("wrong", ["1", b"1", [], 1j, object(), print])
def test_what_is_no_number_is_no_delay(loop, tick, wrong):
    seen = []
    if isinstance(wrong, complex):
        # A complex deadline can be computed; it is the order of deadlines that it does not fit in.
        with pytest.raises(TypeError):
            loop.call_later(3600, len, ())
            loop.call_later(wrong, seen.append, 1)
            tick()
    else:
        with pytest.raises(TypeError):
            loop.call_later(wrong, seen.append, 1)
        loop.call_soon(seen.append, "goes on")
        tick(2)
        assert seen == ["goes on"]


@clause("timers.delay.number-types")
@pytest.mark.parametrize("kind", [int, float, fractions.Fraction, bool])
def test_any_real_number_is_a_delay(loop, tick, kind):
    seen = []
    loop.call_later(kind(0), seen.append, "delay")
    loop.call_later(kind(1), seen.append, "not due").cancelled()
    loop.call_at(int(loop.time()) - 1, seen.append, "time")
    loop.call_at(int(loop.time()) + 3600, seen.append, "not due")
    tick(2)
    assert sorted(seen) == ["delay", "time"]


@clause("timers.delay.overflow")
def test_an_int_too_large_is_refused(loop, tick):
    seen = []
    with pytest.raises(OverflowError):
        loop.call_later(10**400, seen.append, 1)
    loop.call_soon(seen.append, "goes on")
    tick()
    assert seen == ["goes on"]


@clause("timers.delay.infinite")
@METHODS
def test_a_timer_at_infinity_is_never_called(loop, method):
    seen = []
    never = arm(loop, method, math.inf, seen.append, "never")
    loop.call_later(0.003, seen.append, "timer")
    loop.call_later(0.006, loop.stop)
    loop.run_forever()
    assert seen == ["timer"]
    never.cancel()
    loop.call_later(0.003, loop.stop)
    loop.run_forever()
    assert seen == ["timer"]


@clause("timers.delay.infinite")
def test_a_loop_that_has_only_a_timer_at_infinity_is_woken(loop):
    loop.call_later(math.inf, loop.stop)
    asyncio_timer = loop.create_task(asyncio.sleep(0.005))
    assert loop.run_until_complete(asyncio_timer) is None


@clause("timers.delay.infinite")
@METHODS
def test_a_timer_at_minus_infinity_is_due_at_once(loop, tick, method):
    seen = []
    loop.call_later(-1, seen.append, "past")
    arm(loop, method, -math.inf, seen.append, "always")
    tick()
    assert sorted(seen) == ["always", "past"]


@clause("timers.delay.beyond-a-day")
@METHODS
@pytest.mark.parametrize("delay", [86_401, 10**7, 2**31, 2**32, 2**33 / 1000, 2**63, 2.0**64, 1e18, 1e300])
def test_a_delay_of_ages_does_not_come_early(loop, method, delay):
    seen = []
    arm(loop, method, delay, seen.append, "early")
    handle = arm(loop, method, delay, seen.append, "early")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen == []
    handle.cancel()


@clause("timers.delay.beyond-a-day")
def test_a_loop_that_waits_for_ages_is_woken_by_a_thread(loop):

    loop.call_later(10**10, loop.stop)
    with peers.thread(loop.call_soon_threadsafe, loop.stop):
        loop.run_forever()
    assert loop.time() < 10**10


@clause("timers.delay.nan")
@METHODS
def test_nan_disturbs_neither_the_loop_nor_other_timers(loop, method):
    seen = []
    order = [0.02, 0.005, 0.015, 0.01]
    for position, delay in enumerate(order):
        loop.call_later(delay, seen.append, delay)
        if position % 2:
            with contextlib.suppress(ValueError):
                arm(loop, method, math.nan, len, ())
    loop.call_later(0.04, loop.stop)
    loop.run_forever()
    assert seen == sorted(order)


@clause("timers.delay.nan")
@METHODS
def test_a_loop_that_has_nothing_to_do_but_nan_goes_on(loop, method, saw):
    seen = []
    outcomes = ["never called"]

    def schedule():
        try:
            arm(loop, method, math.nan, outcomes.append, "called within milliseconds")
        except ValueError:
            outcomes.append("ValueError when it is scheduled")
        # Behind the first one in a heap that compares: a loop that waits "until NaN" never comes to these.
        loop.call_later(0.001, seen.append, "timer")
        loop.call_later(0.005, loop.stop)

    loop.call_soon(schedule)
    loop.run_forever()
    assert seen == ["timer"]
    saw("timers.delay.nan", outcomes[-1])
