"""Other threads that talk to the loop: `call_soon_threadsafe`, `run_coroutine_threadsafe`, `wrap_future`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from .._kit import clause, peers


@pytest.fixture
def running(loop):
    """The loop, run for ever by another thread."""
    with peers.thread(loop.run_forever):
        yield loop
        loop.call_soon_threadsafe(loop.stop)


@clause("executors.threadsafe.none-lost")
def test_thousands_of_calls_from_many_threads_are_all_made(loop):
    """Each thread's in its order; every now and then a thread waits until the loop has caught up, so it goes idle."""
    threads, each = 24, 1000
    seen = []
    left = threads

    def schedule(name):
        for n in range(each):
            loop.call_soon_threadsafe(seen.append, (name, n))
            if n % 50 == name:
                caught_up = threading.Event()
                loop.call_soon_threadsafe(caught_up.set)
                assert caught_up.wait(peers.TIMEOUT)
        loop.call_soon_threadsafe(last)

    def last():
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    started = [peers.thread(schedule, name) for name in range(threads)]
    loop.run_forever()
    for thread in started:
        thread.result()
    assert len(seen) == threads * each
    for name in range(threads):
        assert [n for by, n in seen if by == name] == list(range(each))


@clause("executors.threadsafe.before-sleep")
def test_a_call_that_comes_as_the_loop_goes_to_sleep_wakes_it(loop):
    """The other thread calls while the loop makes up its mind: in the last callback of a turn."""
    seen = []
    go = threading.Semaphore(0)

    def elsewhere():
        for n in range(1000):
            assert go.acquire(timeout=peers.TIMEOUT)
            loop.call_soon_threadsafe(heard, n)

    def heard(n):
        seen.append(n)
        if n == 999:
            loop.stop()
        else:
            go.release()

    go.release()
    with peers.thread(elsewhere):
        loop.run_forever()
    assert seen == list(range(1000))


@clause("executors.coroutine.result")
def test_a_coroutine_that_another_thread_submits_runs_on_the_loop(running):
    async def coroutine(value):
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is running
        return value

    futures = [asyncio.run_coroutine_threadsafe(coroutine(n), running) for n in range(200)]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    assert [future.result(peers.TIMEOUT) for future in futures] == list(range(200))


@clause("executors.coroutine.exception")
def test_its_exception_is_raised_in_the_other_thread(running):
    error = ZeroDivisionError("as it is")

    async def coroutine():
        await asyncio.sleep(0)
        raise error

    future = asyncio.run_coroutine_threadsafe(coroutine(), running)
    assert future.exception(peers.TIMEOUT) is error


@clause("executors.coroutine.cancel-future")
def test_cancelling_the_future_cancels_the_task(running):
    begun = threading.Event()
    cancelled = threading.Event()

    async def coroutine():
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    future = asyncio.run_coroutine_threadsafe(coroutine(), running)
    assert begun.wait(peers.TIMEOUT)
    assert future.cancel()
    assert cancelled.wait(peers.TIMEOUT)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)


@clause("executors.coroutine.cancel-task")
def test_a_task_that_is_cancelled_cancels_the_future(running):
    async def coroutine():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    future = asyncio.run_coroutine_threadsafe(coroutine(), running)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(peers.TIMEOUT)
    assert future.cancelled()


@clause("executors.coroutine.time-out")
def test_a_thread_that_no_longer_waits_leaves_the_task_running(running):
    leave = asyncio.Event()

    async def coroutine():
        await leave.wait()
        return "done"

    future = asyncio.run_coroutine_threadsafe(coroutine(), running)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    running.call_soon_threadsafe(leave.set)
    assert future.result(peers.TIMEOUT) == "done"


@clause("executors.coroutine.refused")
def test_what_is_no_coroutine_and_a_closed_loop_are_refused(loop):
    with pytest.raises(TypeError):
        asyncio.run_coroutine_threadsafe(len, loop)
    loop.close()

    async def coroutine():
        pass

    made = coroutine()
    with pytest.raises(RuntimeError):
        asyncio.run_coroutine_threadsafe(made, loop)
    made.close()


@clause("executors.wrap.result")
def test_a_wrapped_future_has_the_result_or_exception_of_the_other(loop, run):
    async def main():
        source = concurrent.futures.Future()
        wrapped = asyncio.wrap_future(source, loop=loop)
        assert asyncio.isfuture(wrapped) and wrapped.get_loop() is loop
        assert asyncio.wrap_future(wrapped) is wrapped
        with peers.thread(source.set_result, "result"):
            assert await wrapped == "result"
        source = concurrent.futures.Future()
        wrapped = asyncio.wrap_future(source)
        with peers.thread(source.set_exception, ZeroDivisionError()), pytest.raises(ZeroDivisionError):
            await wrapped
        done = concurrent.futures.Future()
        done.set_result("before")
        assert await asyncio.wrap_future(done) == "before"

    run(main())


@clause("executors.wrap.cancel")
def test_cancellation_goes_both_ways_through_a_wrapped_future(loop, run):
    async def main():
        source = concurrent.futures.Future()
        wrapped = asyncio.wrap_future(source)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        await asyncio.sleep(0)
        assert source.cancelled()
        source = concurrent.futures.Future()
        wrapped = asyncio.wrap_future(source)
        with peers.thread(source.cancel):
            await asyncio.wait([wrapped])
        assert wrapped.cancelled()

    run(main())


@clause("executors.wrap.timeout-cancels")
def test_a_time_out_on_a_wrapped_future_cancels_the_other(loop, run):
    async def main():
        source = concurrent.futures.Future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(source), 0.01)
        await asyncio.sleep(0)
        assert source.cancelled()

    run(main())
