"""Running and stopping a loop, in one thread or several, and interrupting it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from .._kit import clause, peers


def current() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@clause("callbacks.stop.before-run")
def test_stop_before_a_run_polls_once_and_ends(loop):
    ours, theirs = peers.pair()
    seen = []

    def scheduled():
        seen.append("scheduled")
        loop.call_soon(seen.append, "next run")

    with ours, theirs:
        theirs.sendall(b"x")
        loop.add_reader(ours.fileno(), seen.append, "readable")
        loop.call_soon(scheduled)
        loop.stop()
        loop.run_forever()
        loop.remove_reader(ours.fileno())
    assert sorted(seen) == ["readable", "scheduled"]
    assert not loop.is_running()


@clause("callbacks.stop.before-run")
def test_stop_before_a_run_does_not_wait(loop):
    seen = []
    late = loop.call_later(3600, seen.append, "late")
    loop.call_at(loop.time() - 1, seen.append, "due")
    loop.stop()
    loop.run_forever()
    late.cancel()
    assert seen == ["due"]


@clause("callbacks.stop.current-batch")
def test_stop_lets_the_batch_run_and_no_more(loop):
    seen = []

    def stopping():
        loop.call_soon(seen.append, "scheduled before stop()")
        loop.stop()
        loop.call_soon(seen.append, "scheduled after stop()")

    loop.call_soon(seen.append, "first")
    loop.call_soon(stopping)
    loop.call_soon(seen.append, "last")
    loop.run_forever()
    assert seen == ["first", "last"]
    loop.stop()
    loop.run_forever()
    assert seen == ["first", "last", "scheduled before stop()", "scheduled after stop()"]


@clause("callbacks.stop.current-batch")
def test_a_task_that_stops_the_loop_goes_on_in_the_next_run(loop):
    seen = []

    async def main():
        loop.stop()
        seen.append("stopped")
        await asyncio.sleep(0)
        seen.append("next run")

    task = loop.create_task(main())
    loop.run_forever()
    assert seen == ["stopped"]
    loop.run_until_complete(task)
    assert seen == ["stopped", "next run"]


@clause("callbacks.stop.once")
def test_stopping_twice_does_not_stop_the_next_run(loop):
    for _ in range(2):
        loop.call_soon(loop.stop)
    loop.stop()
    loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0.001, "not stopped")) == "not stopped"


@clause("callbacks.stop.incomplete")
def test_run_until_complete_stopped_early_raises(loop, run):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        loop.run_until_complete(future)
    assert not future.done() and not loop.is_running()
    future.set_result(7)
    assert run(future) == 7


@clause("callbacks.stop.incomplete")
def test_a_task_stopped_early_is_not_lost(loop):
    async def main():
        await gate
        return "done"

    gate = loop.create_future()
    task = loop.create_task(main())
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        loop.run_until_complete(task)
    gate.set_result(None)
    assert loop.run_until_complete(task) == "done"


@clause("callbacks.run.result")
def test_run_until_complete_returns_or_raises_and_again(loop):
    async def returns():
        return 5

    async def raises():
        raise LookupError("of the coroutine")

    class Awaitable:
        def __await__(self):
            yield
            return "awaited"

    assert loop.run_until_complete(returns()) == 5
    with pytest.raises(LookupError, match="of the coroutine"):
        loop.run_until_complete(raises())
    assert loop.run_until_complete(Awaitable()) == "awaited"
    future = loop.create_future()
    loop.call_soon(future.set_result, 6)
    assert loop.run_until_complete(future) == 6
    cancelled = loop.create_future()
    loop.call_soon(cancelled.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled)


@clause("callbacks.run.done-future")
def test_a_done_future_is_run_to_its_end(loop):
    future = loop.create_future()
    future.set_result("done")
    seen = []
    loop.call_soon(seen.append, "before")
    assert loop.run_until_complete(future) == "done"
    assert seen == ["before"]


@clause("callbacks.run.foreign-future")
def test_a_future_of_another_loop_is_refused(loop, new_loop):
    future = new_loop().create_future()
    with pytest.raises(ValueError):
        loop.run_until_complete(future)
    assert not loop.is_running()


@clause("callbacks.run.wrong-type")
@pytest.mark.parametrize("wrong", [None, 42, "text", print, [], asyncio.sleep])
def test_anything_not_awaitable_is_refused(loop, wrong):
    with pytest.raises(TypeError):
        loop.run_until_complete(wrong)
    assert not loop.is_running()


@clause("callbacks.run.is-running")
def test_the_loop_is_running_within_callbacks_only(loop, tick):
    seen = []

    def look():
        seen.append((loop.is_running(), asyncio.get_running_loop() is loop, asyncio.get_event_loop() is loop))

    assert not loop.is_running()
    loop.call_soon(look)
    tick()
    assert seen == [(True, True, True)]
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@clause("callbacks.run.reentrant")
def test_running_a_running_loop_is_refused(loop, tick):
    seen = []

    def within():
        future = loop.create_future()
        with pytest.raises(RuntimeError):
            loop.run_until_complete(future)
        seen.append((loop.is_running(), asyncio.get_running_loop() is loop))
        loop.call_soon(seen.append, "goes on")

    loop.call_soon(within)
    tick(2)
    assert seen == [(True, True), "goes on"]


@clause("callbacks.run.reentrant")
def test_run_forever_of_a_running_loop_is_refused(loop, tick):
    refused = []

    def within():
        with pytest.raises(RuntimeError):
            loop.run_forever()
        refused.append(True)

    loop.call_soon(within)
    tick()
    assert refused == [True]


@clause("callbacks.run.reentrant-forever")
def test_a_refused_run_forever_leaves_the_outer_run_as_it_was(loop, new_loop):
    seen = []
    other = new_loop()

    def within():
        for nested in (loop, other):
            with pytest.raises(RuntimeError):
                nested.run_forever()
            seen.append((loop.is_running(), other.is_running(), current() is loop))
        loop.call_soon(loop.stop)

    loop.call_soon(within)
    loop.run_forever()
    assert seen == [(True, False, True)] * 2


@clause("callbacks.run.while-another")
def test_running_a_second_loop_within_the_first_is_refused(loop, new_loop, tick):
    other = new_loop()
    refused = []

    def within():
        with pytest.raises(RuntimeError):
            other.run_until_complete(other.create_future())
        assert not other.is_running()
        refused.append(True)

    loop.call_soon(within)
    tick()
    assert refused == [True]
    assert other.run_until_complete(asyncio.sleep(0, "still good")) == "still good"


@clause("callbacks.run.several-threads")
def test_a_loop_is_run_by_several_threads_in_turn(loop):
    async def where():
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop() is loop
        return threading.get_ident()

    here = threading.get_ident()
    assert loop.run_until_complete(where()) == here
    for _ in range(3):
        there = peers.thread(lambda: (threading.get_ident(), loop.run_until_complete(where()))).result()
        assert there[0] == there[1] != here
    assert loop.run_until_complete(where()) == here


@clause("callbacks.run.several-threads")
def test_a_loop_made_in_a_thread_that_ended_runs_here(new_loop):
    loop = peers.thread(new_loop).result()
    assert loop.run_until_complete(asyncio.sleep(0.001, "ran")) == "ran"


@clause("callbacks.run.loops-in-threads")
def test_loops_in_several_threads_pass_work_around(new_loop):
    loops = [new_loop() for _ in range(4)]
    hops = 400
    seen = [[] for _ in loops]

    def hop(at, n):
        seen[at].append((n, asyncio.get_running_loop() is loops[at], threading.get_ident()))
        if n == hops:
            for loop in loops:
                loop.call_soon_threadsafe(loop.stop)
        else:
            following = (at + 1) % len(loops)
            loops[following].call_soon_threadsafe(hop, following, n + 1)

    loops[0].call_soon(hop, 0, 0)
    threads = [peers.thread(loop.run_forever) for loop in loops]
    for thread in threads:
        thread.result()
    assert sorted(n for events in seen for n, _, _ in events) == list(range(hops + 1))
    assert all(current for events in seen for _, current, _ in events)
    assert [len({thread for _, _, thread in events}) for events in seen] == [1] * len(loops)


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, whatever started this process left of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@clause("callbacks.run.keyboard-interrupt")
@pytest.mark.parametrize("late_timer", [False, True])
def test_ctrl_c_interrupts_an_idle_loop(loop, interruptible, late_timer):
    running, noticed = threading.Event(), threading.Event()
    handle = loop.call_later(3600, loop.stop) if late_timer else None
    loop.call_soon(running.set)
    with peers.thread(peers.press_ctrl_c, running, noticed):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        noticed.set()
    assert not loop.is_running()
    if handle:
        handle.cancel()
    assert loop.run_until_complete(asyncio.sleep(0.001, "again")) == "again"


@clause("callbacks.run.signal-not-lost")
def test_a_signal_that_arrives_as_the_loop_goes_idle_is_noticed(loop):
    rounds = 500
    going_idle = threading.Semaphore(0)
    seen = 0

    def handler(_number, _frame):
        nonlocal seen
        seen += 1
        loop.call_soon_threadsafe(loop.stop if seen == rounds else going_idle.release)

    def elsewhere():
        for _ in range(rounds):
            assert going_idle.acquire(timeout=peers.TIMEOUT)
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        loop.call_soon(going_idle.release)
        with peers.thread(elsewhere):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == rounds


@clause("callbacks.run.keyboard-interrupt")
def test_ctrl_c_interrupts_a_callback(loop, errors, interruptible, tick):
    seen = []

    def busy():
        signal.raise_signal(signal.SIGINT)
        seen.append("not reached")

    loop.call_soon(busy)
    loop.call_soon(seen.append, "behind")
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert "not reached" not in seen and errors == []
    tick()
    assert seen == ["behind"]


@clause("callbacks.run.runner-interrupt")
@pytest.mark.parametrize("late_timer", [False, True])
def test_ctrl_c_cancels_the_main_task_of_a_runner(loop_factory, interruptible, late_timer):
    running, noticed = threading.Event(), threading.Event()
    seen = []

    async def main():
        running.set()
        try:
            await (asyncio.sleep(3600) if late_timer else asyncio.get_running_loop().create_future())
        except asyncio.CancelledError:
            noticed.set()
            seen.append("cancelled")
            raise

    with peers.thread(peers.press_ctrl_c, running, noticed), asyncio.Runner(loop_factory=loop_factory) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert seen == ["cancelled"]
        assert runner.run(asyncio.sleep(0, "again")) == "again"


@clause("callbacks.run.interrupt-of-signal-handler")
def test_an_exception_of_a_signal_handler_leaves_the_run(loop):
    class AlarmError(Exception):
        pass

    def handler(_number, _frame):
        raise AlarmError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        # Again each second: one that comes between the interpreter's last look and the wait goes unnoticed.
        loop.call_soon(signal.setitimer, signal.ITIMER_REAL, 0.05, 1.0)
        with pytest.raises(AlarmError):
            loop.run_forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not loop.is_running()
