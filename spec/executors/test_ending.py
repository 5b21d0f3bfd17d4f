"""The end of executors and of loops with functions still running."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import warnings

import pytest

from .._kit import clause, peers


class Blocking:
    """A function that blocks until it is told to go."""

    def __init__(self):
        self.busy = threading.Event()
        self.leave = threading.Event()
        self.ended = threading.Event()

    def __call__(self):
        self.busy.set()
        assert self.leave.wait(peers.TIMEOUT)
        self.ended.set()
        return "result"


@clause("executors.shutdown.loop-goes-on")
def test_the_loop_goes_on_while_the_default_executor_is_shut_down(loop, run):
    function = Blocking()

    async def main():
        future = loop.run_in_executor(None, function)
        assert function.busy.wait(peers.TIMEOUT)
        task = asyncio.create_task(loop.shutdown_default_executor())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        function.leave.set()
        await task
        assert function.ended.is_set()
        assert await future == "result"

    run(main())


@clause("executors.shutdown.only-the-default")
def test_after_the_shutdown_other_executors_can_be_used(loop, run):
    async def main():
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()
        for call in (lambda: loop.run_in_executor(None, int), lambda: asyncio.to_thread(int)):
            with pytest.raises(RuntimeError):
                await call()
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            assert await loop.run_in_executor(executor, len, "four") == 4

    run(main())


@clause("executors.shutdown.nothing-to-do")
def test_without_a_default_executor_and_a_second_time_there_is_nothing_to_shut_down(loop, run):
    async def main():
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError):
            loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()

    run(main())


@clause("executors.shutdown.given-executor")
def test_a_default_executor_that_was_set_is_shut_down_too(loop, run):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)

    async def main():
        await loop.run_in_executor(None, int)
        await loop.shutdown_default_executor()

    run(main())
    with pytest.raises(RuntimeError):
        executor.submit(int)


@clause("executors.shutdown.time-out")
def test_a_shutdown_that_times_out_warns_and_returns(loop, run):
    if sys.version_info < (3, 13):
        pytest.skip("3.12 has the argument, and waits for the threads all the same")
    function = Blocking()

    async def main():
        future = loop.run_in_executor(None, function)
        assert function.busy.wait(peers.TIMEOUT)
        begun = loop.time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await loop.shutdown_default_executor(timeout=0.05)
        assert loop.time() - begun >= 0.05
        assert [warning.category for warning in caught] == [RuntimeWarning]
        assert not function.ended.is_set()
        with pytest.raises(RuntimeError):
            loop.run_in_executor(None, int)
        function.leave.set()
        assert await future == "result"

    run(main())


@clause("executors.shutdown.time-out")
def test_a_shutdown_in_time_does_not_warn(loop, run):
    if sys.version_info < (3, 12):
        pytest.skip("the argument came with 3.12")

    async def main():
        await loop.run_in_executor(None, int)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await loop.shutdown_default_executor(timeout=60)

    run(main())


@clause("executors.shutdown.executor-gone")
def test_an_executor_that_was_shut_down_refuses_at_the_call(loop, run):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError):
        loop.run_in_executor(executor, int)


@clause("executors.shutdown.runner")
def test_the_end_of_a_run_waits_for_the_threads(loop_factory):
    function = Blocking()

    async def main():
        asyncio.get_running_loop().run_in_executor(None, function)
        assert function.busy.wait(peers.TIMEOUT)
        # Only a loop that still runs while it waits comes to this timer.
        asyncio.get_running_loop().call_later(0.05, function.leave.set)

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        assert function.ended.is_set()
    finally:
        function.leave.set()


@clause("executors.closed.refuses")
def test_a_closed_loop_refuses(loop):
    loop.close()
    with pytest.raises(RuntimeError):
        loop.run_in_executor(None, int)
    with concurrent.futures.ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError):
        loop.run_in_executor(executor, int)


@clause("executors.closed.shuts-down")
def test_closing_the_loop_shuts_the_default_executor_down_without_waiting(new_loop):
    loop = new_loop()
    executor = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    function = Blocking()
    loop.run_in_executor(None, function)
    assert function.busy.wait(peers.TIMEOUT)
    loop.close()
    assert not function.ended.is_set()
    with pytest.raises(RuntimeError):
        executor.submit(int)
    function.leave.set()
    assert function.ended.wait(peers.TIMEOUT)
    executor.shutdown()


@clause("executors.closed.result-dropped")
def test_a_result_for_a_loop_that_is_closed_is_dropped_quietly(new_loop, caplog):
    loop = new_loop()
    function = Blocking()
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        future = loop.run_in_executor(executor, function)
        assert function.busy.wait(peers.TIMEOUT)
        loop.close()
        function.leave.set()
        executor.submit(int).result(peers.TIMEOUT)
    assert not future.done()
    assert not caplog.records
