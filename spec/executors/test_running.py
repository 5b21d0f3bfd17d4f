"""`run_in_executor()` and `asyncio.to_thread()`: what runs where, with what, and what comes back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import multiprocessing
import os
import select
import sys
import threading
import weakref

import pytest

from .._kit import clause, peers

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@clause("executors.run.loop-goes-on")
def test_the_loop_goes_on_while_the_function_blocks(loop, run):
    released = threading.Event()

    async def main():
        future = loop.run_in_executor(None, released.wait, peers.TIMEOUT)
        for _ in range(100):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert not future.done()
        released.set()
        assert await future is True

    run(main())


@clause("executors.run.future")
def test_the_function_is_submitted_at_once_and_a_future_of_the_loop_returned(loop, run):
    ran = threading.Event()
    future = loop.run_in_executor(None, ran.set)  # nobody awaits it, and the loop does not run
    assert ran.wait(peers.TIMEOUT)
    assert asyncio.isfuture(future)
    assert future.get_loop() is loop
    assert run(future) is None


@clause("executors.run.wakes")
def test_a_result_wakes_an_idle_loop(loop):
    """No timer, no other I/O: the loop would wait for ever."""
    for n in range(200):
        assert loop.run_until_complete(loop.run_in_executor(None, lambda n=n: n)) == n


@clause("executors.run.beside-callbacks")
def test_a_thread_gets_on_beside_a_chain_of_callbacks_that_never_ends(loop, run):
    """The interpreter takes the GIL from nobody meanwhile: what the thread gets, the loop lets go of."""
    steps = 0
    begun = threading.Event()  # the interpreter takes the GIL from nobody from then on, and the thread must ask for it

    def work():
        nonlocal steps
        assert begun.wait(peers.TIMEOUT)
        while steps < 100:
            select.select([], [], [], 0)  # lets go of the GIL, and asks for it again
            steps += 1

    async def main():
        working = loop.run_in_executor(None, work)
        iterations = 0
        begun.set()
        while steps < 100 and iterations < 200_000:
            await asyncio.sleep(0)
            iterations += 1
        got = steps
        sys.setswitchinterval(interval)
        await working
        return got

    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    try:
        assert run(main()) == 100
    finally:
        sys.setswitchinterval(interval)


@clause("executors.run.many")
def test_thousands_of_functions_give_each_its_own_result(loop, run):
    async def main():
        futures = [loop.run_in_executor(None, lambda n=n: n * n) for n in range(3000)]
        assert await asyncio.gather(*futures) == [n * n for n in range(3000)]

    run(main())


@clause("executors.run.any-executor")
def test_any_executor_with_submit_will_do(loop, run):
    class Inline(concurrent.futures.Executor):
        """Runs in the calling thread, before submit() returns."""

        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future

    async def main():
        assert await loop.run_in_executor(Inline(), threading.get_ident) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(Inline(), divmod, 1, 0)

    run(main())


@clause("executors.run.any-executor")
def test_a_function_runs_in_another_process(loop, run):
    context = multiprocessing.get_context("fork")

    async def main():
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            assert await loop.run_in_executor(executor, os.getpid) != os.getpid()
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(executor, divmod, 1, 0)

    run(main())


@clause("executors.run.one-default")
def test_the_default_executor_is_made_once_and_its_idle_threads_used_again(loop, run):
    async def main():
        names = {await loop.run_in_executor(None, threading.get_ident) for _ in range(10)}
        assert threading.get_ident() not in names
        assert len(names) <= 2  # a thread may still be on its way to being idle

    run(main())


@clause("executors.errors.exception")
def test_the_exception_itself_is_raised_where_it_is_awaited(loop, run):
    error = ZeroDivisionError("as it is")

    def fail():
        raise error

    async def main():
        with pytest.raises(ZeroDivisionError) as caught:
            await loop.run_in_executor(None, fail)
        assert caught.value is error
        assert "fail" in [entry.name for entry in caught.traceback]

    run(main())


class Strange(BaseException):
    pass


@clause("executors.errors.base-exception")
@pytest.mark.parametrize("error", [Strange, SystemExit, KeyboardInterrupt])
def test_base_exceptions_reach_who_awaits_and_the_threads_live_on(loop, run, error):
    def fail():
        raise error("as it is")

    async def main():
        for _ in range(40):  # more than there are threads
            with pytest.raises(error) as caught:
                await loop.run_in_executor(None, fail)
            assert caught.value.args == ("as it is",)
        assert await loop.run_in_executor(None, len, "four") == 4

    run(main())


@clause("executors.errors.stop-iteration")
def test_stop_iteration_becomes_a_runtime_error(loop, run):
    if sys.version_info < (3, 13):
        pytest.skip("before 3.13 the future was never done")

    def fail():
        raise StopIteration("inside")

    async def main():
        with pytest.raises(RuntimeError) as caught:
            await loop.run_in_executor(None, fail)
        assert isinstance(caught.value.__cause__, StopIteration)

    run(main())


@clause("executors.errors.unretrieved")
def test_an_exception_that_nobody_awaits_is_reported_when_the_future_goes(loop, run, errors):
    async def main():
        future = loop.run_in_executor(None, divmod, 1, 0)
        await asyncio.wait([future])
        del future

    run(main())
    gc.collect()
    assert isinstance(errors.only()["exception"], ZeroDivisionError)


@clause("executors.run.lets-go")
def test_nothing_is_kept_of_a_function_that_ran(loop, run):
    class Thing:
        def __call__(self, other):
            return None

    async def main():
        thing, other = Thing(), Thing()
        refs = [weakref.ref(thing), weakref.ref(other)]
        await loop.run_in_executor(None, thing, other)
        del thing, other
        # The thread lets go of its item when it takes the next one.
        await loop.run_in_executor(None, int)
        for _ in range(100):
            gc.collect()
            if not any(ref() for ref in refs):
                return
            await asyncio.sleep(0.01)
        pytest.fail("something is kept")

    run(main())


@clause("executors.context.plain")
def test_run_in_executor_does_not_hand_on_the_context(loop, run):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            await loop.run_in_executor(executor, var.get)  # the thread is there now
            var.set("of the caller")
            assert await loop.run_in_executor(executor, var.get) == "unset"

    run(main())


@clause("executors.context.to-thread")
def test_to_thread_hands_on_a_copy_of_the_context(loop, run):
    def change():
        seen = var.get()
        var.set("of the thread")
        return seen, var.get()

    async def main():
        var.set("of the caller")
        coroutine = asyncio.to_thread(change)
        var.set("when it is awaited")
        assert await coroutine == ("when it is awaited", "of the thread")
        assert var.get() == "when it is awaited"

    run(main())


@clause("executors.to-thread.arguments")
def test_to_thread_hands_on_arguments_results_and_exceptions(loop, run):
    def function(*args, **kwargs):
        return args, kwargs, threading.get_ident()

    async def main():
        args, kwargs, thread = await asyncio.to_thread(function, 1, "two", func="three", loop=4)
        assert args == (1, "two") and kwargs == {"func": "three", "loop": 4}
        assert thread != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)

    run(main())


@clause("executors.cancel.not-begun")
def test_a_function_that_is_cancelled_before_it_begins_never_runs(loop, run):
    ran = []
    busy = threading.Event()
    leave = threading.Event()

    def block():
        busy.set()
        return leave.wait(peers.TIMEOUT)

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            first = loop.run_in_executor(executor, block)
            assert busy.wait(peers.TIMEOUT)
            second = loop.run_in_executor(executor, ran.append, "second")
            third = loop.run_in_executor(executor, ran.append, "third")
            assert second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0)
            leave.set()
            assert await first is True
            await third
        assert ran == ["third"]

    run(main())


@clause("executors.cancel.running")
@pytest.mark.parametrize("fails", [False, True])
def test_a_function_that_runs_goes_on_when_its_future_is_cancelled(loop, run, fails):
    """Its result, or exception, comes to nothing, and is not reported."""
    busy = threading.Event()
    leave = threading.Event()
    ended = []

    def block():
        busy.set()
        assert leave.wait(peers.TIMEOUT)
        ended.append(True)
        if fails:
            raise ZeroDivisionError

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            task = asyncio.create_task(asyncio.wait_for(loop.run_in_executor(executor, block), None))
            await asyncio.sleep(0)
            assert busy.wait(peers.TIMEOUT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not ended
            leave.set()
            await loop.run_in_executor(executor, int)
            assert ended
            await asyncio.sleep(0)

    run(main())


@clause("executors.debug.checked")
def test_debug_mode_refuses_what_cannot_run_in_a_thread(loop, run):
    async def coroutine_function():
        pass

    loop.set_debug(True)
    for wrong in (coroutine_function, "not callable"):
        with pytest.raises(TypeError):
            loop.run_in_executor(None, wrong)
    coroutine = coroutine_function()
    with pytest.raises(TypeError):
        loop.run_in_executor(None, coroutine)
    coroutine.close()


@clause("executors.errors.not-callable")
def test_what_is_not_callable_fails_where_it_is_awaited(loop, run):
    async def main():
        with pytest.raises(TypeError):
            await loop.run_in_executor(None, "not callable")

    run(main())
