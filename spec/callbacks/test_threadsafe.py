"""Scheduling from other threads, signal handlers and finalisers."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time

import pytest

from .._kit import clause, peers


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def debug(request, loop):
    """Debug mode as it may be: there a cancelled handle keeps its repr, which takes Python code."""
    loop.set_debug(request.param)
    loop.slow_callback_duration = 3600.0


@clause("callbacks.threadsafe.wakes")
def test_another_thread_wakes_an_idle_loop(loop):
    ran_in = []
    running = threading.Event()

    def elsewhere():
        assert running.wait(peers.TIMEOUT)
        loop.call_soon_threadsafe(lambda: ran_in.append(threading.get_ident()))
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(running.set)
    with peers.thread(elsewhere):
        loop.run_forever()
    assert ran_in == [threading.get_ident()]


@clause("callbacks.threadsafe.wakes")
def test_a_loop_that_waits_for_a_late_timer_is_woken_too(loop):
    late = loop.call_later(3600, loop.stop)
    with peers.thread(loop.call_soon_threadsafe, loop.stop):
        loop.run_forever()
    late.cancel()


@clause("callbacks.threadsafe.fifo")
def test_what_each_thread_schedules_is_called_in_its_order(loop):
    seen = []
    left = 8
    each = 2000

    def schedule(name):
        for n in range(each):
            loop.call_soon_threadsafe(seen.append, (name, n))
        loop.call_soon_threadsafe(last)

    def last():
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    threads = [peers.thread(schedule, name) for name in range(left)]
    loop.run_forever()
    for thread in threads:
        thread.result()
    assert len(seen) == len(threads) * each
    for name in range(len(threads)):
        assert [n for by, n in seen if by == name] == list(range(each))


@clause("callbacks.threadsafe.no-lost-wakeup")
def test_a_thousand_round_trips_between_threads_end(loop):
    rounds = 1000
    turn = threading.Semaphore(0)
    seen = []

    def elsewhere():
        for n in range(rounds):
            assert turn.acquire(timeout=peers.TIMEOUT)
            loop.call_soon_threadsafe(hear, n)

    def hear(n):
        seen.append(n)
        if n == rounds - 1:
            loop.stop()
        turn.release()  # the other thread schedules while this one goes idle

    turn.release()
    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == list(range(rounds))


@clause("callbacks.threadsafe.before-run")
def test_what_a_thread_scheduled_before_the_run_is_called(loop, tick):
    seen = []
    loop.call_soon(seen.append, "before")
    peers.thread(loop.call_soon_threadsafe, seen.append, "from a thread").result()
    loop.call_soon(seen.append, "after")
    assert seen == []
    tick()
    assert seen == ["before", "from a thread", "after"]


@clause("callbacks.threadsafe.cancel")
def test_what_a_thread_scheduled_can_be_cancelled(loop, tick):
    seen = []
    handle = peers.thread(loop.call_soon_threadsafe, seen.append, "cancelled").result()
    handle.cancel()
    assert handle.cancelled()
    tick(2)
    assert seen == []


@clause("callbacks.threadsafe.cancel-elsewhere")
def test_what_another_thread_cancelled_is_not_called(loop, debug):
    called = []
    answers = []
    cancelled = threading.Event()

    def elsewhere():
        handle = loop.call_soon_threadsafe(called.append, "cancelled")
        handle.cancel()
        answers.append(handle.cancelled())
        cancelled.set()
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(cancelled.wait, peers.TIMEOUT)  # the loop gets to the callback after its cancellation only
    with peers.thread(elsewhere):
        loop.run_forever()
    assert (called, answers) == ([], [True])


class Boom(Exception):
    pass


@clause("callbacks.threadsafe.cancel-waits")
@pytest.mark.parametrize("ask", ["cancel", "cancelled"])
@pytest.mark.parametrize("error", [None, Boom, KeyboardInterrupt])
def test_a_thread_that_asks_about_a_running_callback_waits_for_its_end(loop, errors, ask, error):
    seen = []
    running = threading.Event()

    def callback():
        running.set()
        time.sleep(0.05)  # clause-delay: nothing tells that the threads have begun to wait
        seen.append("ended")
        if error is not None:
            raise error

    def elsewhere():
        assert running.wait(peers.TIMEOUT)
        getattr(handle, ask)()
        seen.append("asked")

    handle = peers.thread(loop.call_soon_threadsafe, callback).result()
    threads = [peers.thread(elsewhere) for _ in range(3)]
    loop.call_soon(loop.stop)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()
    for thread in threads:
        thread.result()
    assert seen == ["ended", "asked", "asked", "asked"]
    assert handle.cancelled() == (ask == "cancel")
    assert [type(context["exception"]) for context in errors.take()] == ([Boom] if error is Boom else [])


@clause("callbacks.threadsafe.cancel-own")
def test_a_callback_may_cancel_its_own_handle(loop, debug):
    seen = []
    known = threading.Event()

    def callback():
        assert known.wait(peers.TIMEOUT)
        handles[0].cancel()
        seen.append(handles[0].cancelled())
        loop.stop()

    def elsewhere():
        handles.append(loop.call_soon_threadsafe(callback))
        known.set()

    handles = []
    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == [True]


@clause("callbacks.threadsafe.stop")
def test_a_thread_stops_the_loop(loop):
    for _ in range(50):
        with peers.thread(loop.call_soon_threadsafe, loop.stop):
            loop.run_forever()
        assert not loop.is_running()


@clause("callbacks.threadsafe.closed")
def test_on_a_closed_loop_it_raises_in_any_thread(loop):
    loop.close()
    with pytest.raises(RuntimeError):
        loop.call_soon_threadsafe(len, ())
    with pytest.raises(RuntimeError):
        peers.thread(loop.call_soon_threadsafe, len, ()).result()


@clause("callbacks.threadsafe.closed-race")
def test_a_thread_that_schedules_while_the_loop_is_closed_gets_a_handle_or_runtime_error(new_loop):
    for _ in range(20):
        loop = new_loop()
        going = threading.Event()

        def schedule_until_closed(loop=loop, going=going):
            while True:
                try:
                    loop.call_soon_threadsafe(len, ())
                except RuntimeError:
                    return
                finally:
                    going.set()

        with peers.thread(schedule_until_closed):
            assert going.wait(peers.TIMEOUT)
            loop.close()


@pytest.fixture
def on_alarm():
    """Installs a handler for SIGALRM; puts the old one back."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@clause("callbacks.threadsafe.signal-handler")
@pytest.mark.parametrize("late_timer", [False, True])
def test_a_signal_handler_wakes_an_idle_loop(loop, on_alarm, late_timer):
    seen = []

    def handler(_number, _frame):
        seen.append("handler")
        loop.call_soon_threadsafe(loop.stop)

    on_alarm(handler)
    if late_timer:
        loop.call_later(3600, seen.append, "too late")
    # Again each second: one that comes between the interpreter's last look and the wait goes unnoticed.
    loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.05, 1.0)
    loop.run_forever()
    assert seen == ["handler"]


@clause("callbacks.threadsafe.signal-handler")
def test_signal_handlers_schedule_while_the_loop_is_busy(loop, on_alarm):
    seen = []
    handled = 0

    def handler(_number, _frame):
        nonlocal handled
        loop.call_soon_threadsafe(seen.append, handled)
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # not periodic: it must not interrupt itself

    def chain():
        if handled < 50:
            loop.call_soon(chain)
        else:
            loop.stop()

    on_alarm(handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    loop.call_soon(chain)
    loop.run_forever()
    signal.setitimer(signal.ITIMER_REAL, 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == list(range(handled))


@clause("callbacks.threadsafe.reentrant")
def test_a_finaliser_may_schedule_while_the_loop_schedules(loop, tick):
    seen = []

    class Finalised:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            loop.call_soon_threadsafe(seen.append, "finalised")

    made = 3000
    threshold = gc.get_threshold()
    gc.set_threshold(7)  # the collector runs within whatever allocates, the loop's own methods included
    try:
        for _ in range(made):
            Finalised()
            loop.call_soon(len, ())
            loop.call_soon_threadsafe(len, ())
            if len(seen) % 10 == 0:
                tick()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    tick(2)
    assert seen == ["finalised"] * made
