"""One loop and several threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading

import pytest

from .._kit import clause, peers


@contextlib.contextmanager
def running(loop):
    """The loop runs in a thread of its own; stopped in the end."""
    started = threading.Event()
    loop.call_soon(started.set)
    with peers.thread(loop.run_forever):
        assert started.wait(peers.TIMEOUT)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)


@clause("lifecycle.threads.running-is-of-the-thread")
def test_a_loop_that_runs_elsewhere_is_not_running_here(loop, new_loop):
    with running(loop):
        assert loop.is_running()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        other = new_loop()
        assert other.run_until_complete(asyncio.sleep(0, "runs beside")) == "runs beside"


async def ident():
    return threading.get_ident()


@clause("lifecycle.threads.refused-elsewhere")
def test_a_loop_that_runs_elsewhere_is_neither_run_nor_closed(loop):
    with running(loop):
        future = loop.create_future()
        with pytest.raises(RuntimeError):
            loop.run_until_complete(future)
        with pytest.raises(RuntimeError):
            loop.close()
        assert loop.is_running() and not loop.is_closed()
        where = asyncio.run_coroutine_threadsafe(ident(), loop).result(peers.TIMEOUT)
        assert where != threading.get_ident(), "it runs on, where it ran"


@clause("lifecycle.threads.refused-forever-elsewhere")
def test_run_forever_of_a_loop_that_runs_elsewhere_leaves_it_as_it_is(loop):
    with running(loop):
        with pytest.raises(RuntimeError):
            loop.run_forever()
        assert loop.is_running()
        with pytest.raises(RuntimeError):
            loop.close()
        where = asyncio.run_coroutine_threadsafe(ident(), loop).result(peers.TIMEOUT)
        assert where != threading.get_ident()
    assert not loop.is_running()


@clause("lifecycle.threads.closed-elsewhere")
def test_a_loop_is_closed_in_another_thread_than_it_ran_in(loop):
    peers.thread(loop.run_until_complete, asyncio.sleep(0.001)).result()
    loop.call_later(3600, print)
    assert not loop.is_running()
    loop.close()
    assert loop.is_closed()


@clause("lifecycle.threads.made-run-and-closed-apart")
def test_a_loop_is_made_run_and_closed_in_three_threads(loop_factory):
    # All three live to the end: a thread may have the identifier of one that has ended.
    with contextlib.ExitStack() as stack:
        makes, runs, closes = (stack.enter_context(concurrent.futures.ThreadPoolExecutor(1)) for _ in range(3))
        loop = makes.submit(loop_factory).result()
        assert runs.submit(loop.run_until_complete, asyncio.sleep(0.001, "ran")).result() == "ran"
        closes.submit(loop.close).result()
        assert loop.is_closed()


@clause("lifecycle.threads.coroutine-threadsafe")
def test_a_coroutine_handed_over_gives_its_result_or_exception(loop):
    error = LookupError()

    async def give():
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    async def fail():
        raise error

    with running(loop):
        assert asyncio.run_coroutine_threadsafe(give(), loop).result(peers.TIMEOUT) is loop
        with pytest.raises(LookupError) as caught:
            asyncio.run_coroutine_threadsafe(fail(), loop).result(peers.TIMEOUT)
        assert caught.value is error


@clause("lifecycle.threads.coroutine-cancelled")
def test_cancelling_what_was_handed_over_cancels_the_coroutine(loop):
    waiting, cancelled = threading.Event(), threading.Event()

    async def wait():
        try:
            waiting.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with running(loop):
        future = asyncio.run_coroutine_threadsafe(wait(), loop)
        assert waiting.wait(peers.TIMEOUT)
        assert future.cancel()
        assert cancelled.wait(peers.TIMEOUT)
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(peers.TIMEOUT)
