"""Delivery: waking the loop, order, storms, threads."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from .._kit import clause, peers
from .helpers import FIRST, SECOND, ignored, send, send_from_thread

QUEUED = [signal.SIGRTMIN + n for n in range(1, 4)] if hasattr(signal, "SIGRTMIN") else []
"""Real-time signals: the kernel queues each, and so counts them."""

full = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""CPython may say that the descriptor for the numbers of signals is full."""


def waits_for_signal(loop, send_it):
    """Run the loop, idle but for a timer an hour away; once it runs, `send_it` is called in a thread."""
    running = threading.Event()
    timer = loop.call_later(3600, loop.stop)
    loop.call_soon(running.set)

    def sender():
        assert running.wait(peers.TIMEOUT)
        time.sleep(0.05)  # clause-delay: the loop is to wait already
        send_it()

    started = time.monotonic()
    with peers.thread(sender):
        loop.run_forever()
    timer.cancel()
    return time.monotonic() - started


@clause("signals.delivery.wakes-idle")
def test_a_signal_wakes_a_loop_that_waits_for_a_timer(loop):
    loop.add_signal_handler(FIRST, loop.stop)
    assert waits_for_signal(loop, lambda: os.kill(os.getpid(), FIRST)) >= 0.05


@clause("signals.delivery.wakes-idle")
def test_a_signal_wakes_a_loop_that_waits_for_nothing(loop):
    running = threading.Event()

    def sender():
        assert running.wait(peers.TIMEOUT)
        time.sleep(0.05)  # clause-delay: the loop is to wait already
        os.kill(os.getpid(), FIRST)

    loop.add_signal_handler(FIRST, loop.stop)
    loop.call_soon(running.set)
    with peers.thread(sender):
        loop.run_forever()


@clause("signals.delivery.wakes-idle")
def test_a_timer_of_the_kernel_wakes_the_loop(loop):
    loop.add_signal_handler(signal.SIGALRM, loop.stop)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    loop.run_forever()


@clause("signals.delivery.other-thread")
def test_a_signal_that_another_thread_gets_wakes_the_loop(loop):
    seen = []
    ready, end = threading.Event(), threading.Event()

    def handler():
        seen.append(threading.get_ident())
        loop.stop()

    def other():
        ready.set()
        end.wait(peers.TIMEOUT)

    loop.add_signal_handler(FIRST, handler)
    with peers.thread(other) as thread:
        assert ready.wait(peers.TIMEOUT)
        waits_for_signal(loop, lambda: signal.pthread_kill(thread._thread.ident, FIRST))
        end.set()
    assert seen == [threading.get_ident()]


@clause("signals.delivery.other-thread")
def test_a_signal_that_the_main_thread_blocks_is_delivered(loop):
    end = threading.Event()
    loop.add_signal_handler(FIRST, loop.stop)
    with peers.thread(end.wait, peers.TIMEOUT):
        signal.pthread_sigmask(signal.SIG_BLOCK, [FIRST])
        try:
            waits_for_signal(loop, lambda: os.kill(os.getpid(), FIRST))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [FIRST])
            end.set()


@clause("signals.delivery.before-run")
@pytest.mark.parametrize("ran_before", [False, True])
def test_a_signal_before_the_run_is_delivered_by_it(loop, tick, ran_before):
    seen = []
    if ran_before:
        tick()
    loop.add_signal_handler(FIRST, seen.append, "called")
    send(FIRST)
    assert seen == []
    tick(5)
    assert seen == ["called"]


@clause("signals.delivery.before-run")
def test_a_signal_between_two_runs_is_delivered_by_the_second(loop, tick):
    seen = []
    loop.call_soon(loop.add_signal_handler, FIRST, seen.append, "called")
    tick(2)
    send(FIRST)
    loop.add_signal_handler(SECOND, loop.stop)
    send(SECOND)
    loop.run_forever()
    tick(2)
    assert seen == ["called"]


@clause("signals.delivery.as-it-goes-idle")
def test_no_signal_is_missed_as_the_loop_goes_to_wait(loop):
    rounds = 1000
    going_idle = threading.Semaphore(0)
    seen = 0

    def handler():
        nonlocal seen
        seen += 1
        if seen == rounds:
            loop.stop()
        else:
            going_idle.release()

    def elsewhere():
        for _ in range(rounds):
            assert going_idle.acquire(timeout=peers.TIMEOUT)
            os.kill(os.getpid(), FIRST)

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(going_idle.release)
    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == rounds


@clause("signals.delivery.order")
def test_callbacks_are_called_in_the_order_of_the_signals(loop, tick):
    numbers = [FIRST, SECOND, signal.SIGHUP, signal.SIGTERM, signal.SIGALRM, signal.SIGWINCH]
    orders = [numbers, numbers[::-1], [FIRST, SECOND] * 8, [SECOND, signal.SIGTERM, FIRST, SECOND, signal.SIGHUP]]
    seen = []

    def send_all(order):
        for number in order:
            send(number)

    for number in numbers:
        loop.add_signal_handler(number, seen.append, number)
    for order in orders:
        seen.clear()
        loop.call_soon(send_all, order)
        tick(5)
        assert list(dict.fromkeys(seen)) == list(dict.fromkeys(order))


@clause("signals.delivery.each")
def test_each_signal_received_is_a_call(loop, tick):
    seen = []

    def send_many():
        for _ in range(100):
            send(FIRST)
            send(SECOND)

    loop.add_signal_handler(FIRST, seen.append, "first")
    loop.add_signal_handler(SECOND, seen.append, "second")
    loop.call_soon(send_many)
    tick(5)
    assert seen == ["first", "second"] * 100


@clause("signals.delivery.each")
@pytest.mark.skipif(not QUEUED, reason="no real-time signals")
def test_each_queued_signal_of_another_thread_is_a_call(loop):
    seen, each = [], 50

    def handler(number):
        seen.append(number)
        if len(seen) == each * len(QUEUED):
            loop.stop()

    for number in QUEUED:
        loop.add_signal_handler(number, handler, number)
    with peers.thread(lambda: [os.kill(os.getpid(), number) for _ in range(each) for number in QUEUED]):
        loop.run_forever()
    assert sorted(seen) == sorted(QUEUED * each)


@clause("signals.delivery.under-chain")
def test_a_chain_of_callbacks_does_not_keep_a_signal_away(loop):
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == 10:
            send(FIRST)
        loop.call_soon(step)

    loop.add_signal_handler(FIRST, loop.stop)
    loop.call_soon(step)
    loop.run_forever()
    assert 10 < steps <= 60


@full
@clause("signals.storm.survived")
def test_a_storm_is_survived_and_delivered(loop, tick):
    count, seen = 2000, []

    def storm():
        for _ in range(count):
            send(FIRST)

    loop.add_signal_handler(FIRST, seen.append, "called")
    loop.call_soon(storm)
    tick(10)
    assert 1 <= len(seen) <= count
    before = len(seen)
    loop.call_soon(send, FIRST)
    tick(5)
    assert len(seen) == before + 1


@full
@clause("signals.storm.survived")
def test_a_storm_while_the_loop_does_not_run_is_survived(loop, tick):
    seen = []
    loop.add_signal_handler(FIRST, seen.append, "called")
    for _ in range(2000):
        send(FIRST)
    tick(10)
    assert 1 <= len(seen) <= 2000


@full
@clause("signals.storm.survived")
def test_a_storm_from_a_thread_at_a_running_loop_is_survived(loop):
    seen = []

    def elsewhere():
        for _ in range(5000):
            os.kill(os.getpid(), FIRST)
        os.kill(os.getpid(), SECOND)

    loop.add_signal_handler(FIRST, seen.append, "called")
    loop.add_signal_handler(SECOND, loop.stop)
    loop.call_later(10, loop.stop)
    with peers.thread(elsewhere):
        loop.run_forever()
    assert 1 <= len(seen) <= 5000


@full
@clause("signals.storm.no-kind-lost")
@pytest.mark.parametrize("count", [1000, 70_000])
def test_the_last_signal_of_another_kind_is_not_lost_in_a_storm(loop, tick, count):
    seen = []

    def storm():
        for _ in range(count):
            send(FIRST)
        send(SECOND)

    loop.add_signal_handler(FIRST, seen.append, "storm")
    loop.add_signal_handler(SECOND, seen.append, "last")
    loop.call_soon(storm)
    tick(10)
    assert seen.count("last") == 1
    assert 1 <= seen.count("storm") <= count
    seen.clear()
    loop.call_soon(send, SECOND)
    loop.call_soon(send, FIRST)
    tick(5)
    assert seen == ["last", "storm"]


@clause("signals.delivery.loop-in-thread")
def test_a_loop_that_another_thread_runs_calls_the_handler_there(loop):
    seen = []
    running = threading.Event()

    def handler():
        seen.append(threading.get_ident())
        loop.stop()

    def elsewhere():
        loop.call_soon(running.set)
        loop.run_forever()
        return threading.get_ident()

    loop.add_signal_handler(FIRST, handler)
    with peers.thread(elsewhere) as thread:
        assert running.wait(peers.TIMEOUT)
        os.kill(os.getpid(), FIRST)
        assert seen == [thread.result()]
    assert loop.remove_signal_handler(FIRST)


@clause("signals.delivery.loops-in-threads")
def test_loops_of_other_threads_run_on_and_call_no_handler(loop, new_loop):
    seen = []
    others = [new_loop() for _ in range(3)]

    def elsewhere(other):
        async def count():
            for _ in range(500):
                await asyncio.sleep(0)
            return "counted"

        return [other.run_until_complete(count()) for _ in range(5)]

    def handler():
        seen.append(threading.get_ident())
        if len(seen) < 200:
            send_from_thread(FIRST)
        else:
            loop.stop()

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(send, FIRST)
    threads = [peers.thread(elsewhere, other) for other in others]
    loop.run_forever()
    assert [thread.result() for thread in threads] == [["counted"] * 5] * 3
    assert set(seen) == {threading.get_ident()}


@clause("signals.delivery.restarts-calls")
def test_a_read_that_a_signal_interrupts_goes_on(loop, tick):
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    about_to, interrupted = threading.Event(), []

    def read():
        buffer = ctypes.create_string_buffer(1)
        about_to.set()
        # Not os.read(), which tries again of itself (PEP 475).
        return libc.read(reading, buffer, 1), ctypes.get_errno()

    loop.add_signal_handler(FIRST, interrupted.append, True)
    try:
        with peers.thread(read) as thread:
            assert about_to.wait(peers.TIMEOUT)
            for _ in range(5):
                time.sleep(0.01)  # clause-delay: the thread is to be in its system call
                with suppress(ProcessLookupError):
                    signal.pthread_kill(thread._thread.ident, FIRST)
            tick(5)
            os.write(writing, b"x")
            assert thread.result() == (1, 0)
    finally:
        os.close(reading)
        os.close(writing)
    assert interrupted


@clause("signals.delivery.forked-child")
def test_a_signal_to_a_forked_child_stays_there(loop, tick):
    seen = []
    loop.add_signal_handler(FIRST, seen.append, "called")
    tick()
    pid = os.fork()
    if pid == 0:
        try:
            send(FIRST)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    tick(5)
    assert seen == []
    with ignored(SECOND):
        loop.call_soon(send, FIRST)
        tick(5)
    assert seen == ["called"]
