"""Closing a loop, and what it closes with it: asynchronous generators and the default executor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import sys
import threading
import warnings
import weakref

import pytest

from .._kit import clause, peers


class Argument:
    """Something to watch the life of."""


@clause("callbacks.close.running")
def test_closing_a_running_loop_is_refused(loop, tick):
    seen = []

    def within():
        with pytest.raises(RuntimeError):
            loop.close()
        seen.append((loop.is_running(), loop.is_closed()))
        loop.call_soon(seen.append, "goes on")

    loop.call_soon(within)
    tick(2)
    assert seen == [(True, False), "goes on"]


@clause("callbacks.close.twice")
def test_closing_twice_is_closing_once(loop):
    assert not loop.is_closed()
    assert loop.close() is None
    assert loop.is_closed()
    assert loop.close() is None
    assert loop.is_closed() and not loop.is_running()


@clause("callbacks.close.twice")
def test_a_loop_that_ran_is_closed(loop, run):
    run(asyncio.sleep(0.001))
    loop.close()
    assert loop.is_closed()


@clause("callbacks.close.discards")
def test_pending_callbacks_are_discarded_and_let_go(loop):
    seen = []
    argument = Argument()
    watched = weakref.ref(argument)
    loop.call_soon(seen.append, argument)
    loop.call_soon_threadsafe(seen.append, argument)
    loop.call_later(0, seen.append, argument)
    loop.call_later(3600, seen.append, argument)
    del argument
    loop.close()
    gc.collect()
    assert watched() is None
    assert seen == []


@clause("callbacks.close.methods-raise")
@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("call_soon", (len, ())),
        ("call_soon_threadsafe", (len, ())),
        ("call_later", (0, len, ())),
        ("call_at", (0, len, ())),
        ("run_forever", ()),
        ("run_in_executor", (None, len, ())),
    ],
)
def test_a_closed_loop_refuses(loop, method, args):
    loop.close()
    with pytest.raises(RuntimeError):
        getattr(loop, method)(*args)
    assert loop.is_closed() and not loop.is_running()


@clause("callbacks.close.methods-raise")
@pytest.mark.parametrize("method", ["create_task", "run_until_complete"])
def test_a_closed_loop_refuses_coroutines(loop, method):
    async def main():
        pass

    loop.close()
    coroutine = main()
    with pytest.raises(RuntimeError):
        getattr(loop, method)(coroutine)
    coroutine.close()


@clause("callbacks.close.descriptors")
def test_closing_gives_every_descriptor_back(loop_factory):
    def descriptors():
        return sorted(os.listdir("/dev/fd"))

    loop_factory().close()  # whatever the first loop of a process opens for good
    before = descriptors()
    loops = [loop_factory() for _ in range(10)]
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    loops.clear()
    gc.collect()
    assert descriptors() == before


@clause("callbacks.close.collectable")
def test_a_closed_loop_is_collected(loop_factory):
    loop = loop_factory()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.attached = [loop.call_soon(loop.stop), loop.call_later(3600, loop.stop)]
    loop.set_exception_handler(lambda _loop, _context, kept=loop: None)
    watched = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert watched() is None


@clause("callbacks.close.not-closed-warns")
def test_a_loop_that_was_not_closed_warns(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        del loop
        gc.collect()
    assert any(issubclass(warning.category, ResourceWarning) for warning in caught)


@clause("callbacks.asyncgen.finalized")
def test_a_dropped_asynchronous_generator_is_closed(loop, run):
    seen = []

    async def generator():
        try:
            while True:
                yield "item"
        finally:
            await asyncio.sleep(0)
            seen.append("closed")
            done.set()

    async def main():
        async for _ in generator():
            break
        gc.collect()
        await done.wait()

    done = asyncio.Event()
    run(main())
    assert seen == ["closed"]


@clause("callbacks.asyncgen.finalized")
def test_a_generator_dropped_by_another_thread_is_closed(loop, run):
    closed_in = []
    kept = []

    async def generator():
        try:
            yield "item"
        finally:
            closed_in.append(threading.get_ident())
            done.set()

    async def main():
        kept.append(generator())
        await anext(kept[0])
        with peers.thread(kept.clear):
            await done.wait()

    done = asyncio.Event()
    run(main())
    assert closed_in == [threading.get_ident()]


@clause("callbacks.asyncgen.shutdown")
def test_shutdown_asyncgens_closes_open_generators(loop, run):
    seen = []

    async def generator(name):
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            seen.append(name)

    open_ones = [generator(name) for name in "ab"]

    async def begin(*generators):
        for one in generators:
            await anext(one)

    run(begin(*open_ones))
    assert seen == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert sorted(seen) == ["a", "b"]
    late = generator("late")
    with pytest.warns(ResourceWarning):
        run(begin(late))
    run(late.aclose())


@clause("callbacks.asyncgen.shutdown")
def test_a_generator_that_fails_to_close_is_reported(loop, errors, run):
    async def generator():
        try:
            yield 1
        finally:
            raise LookupError("while closing")

    async def begin():
        await anext(kept)

    kept = generator()
    run(begin())
    loop.run_until_complete(loop.shutdown_asyncgens())
    context = errors.only()
    assert isinstance(context["exception"], LookupError)
    assert context["asyncgen"] is kept


@clause("callbacks.asyncgen.hooks-restored")
def test_the_hooks_for_asynchronous_generators_are_put_back(loop, tick):
    def firstiter(_generator):
        pass

    seen = []
    sys.set_asyncgen_hooks(firstiter=firstiter)
    try:
        loop.call_soon(lambda: seen.append(sys.get_asyncgen_hooks()))
        tick()
        assert sys.get_asyncgen_hooks().firstiter is firstiter
        assert sys.get_asyncgen_hooks().finalizer is None
    finally:
        sys.set_asyncgen_hooks(firstiter=None)
    assert seen[0].firstiter not in (None, firstiter) and seen[0].finalizer is not None


@clause("callbacks.executor.runs")
def test_a_function_runs_in_another_thread(loop, run):
    def function(*args):
        return args, threading.get_ident()

    async def main():
        return await asyncio.get_running_loop().run_in_executor(None, function, 1, "two")

    args, thread = run(main())
    assert args == (1, "two") and thread != threading.get_ident()
    future = loop.run_in_executor(None, len, 3)
    with pytest.raises(TypeError):
        run(future)


@clause("callbacks.executor.runs")
def test_a_given_executor_is_used(loop, run):
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="given") as executor:
        name = run(loop.run_in_executor(executor, lambda: threading.current_thread().name))
    assert name.startswith("given")


@clause("callbacks.executor.runs")
def test_many_functions_run_at_once(loop, run):
    barrier = threading.Barrier(4)

    async def main():
        waits = [loop.run_in_executor(None, barrier.wait, peers.TIMEOUT) for _ in range(4)]
        return sorted(await asyncio.gather(*waits))

    assert run(main()) == [0, 1, 2, 3]


@clause("callbacks.executor.shutdown")
def test_shutdown_waits_for_the_threads_and_ends_the_use_of_them(loop, run):
    ended = []
    begun = threading.Event()
    leave = threading.Event()

    def function():
        begun.set()
        assert leave.wait(peers.TIMEOUT)
        ended.append(threading.current_thread())

    async def main():
        future = loop.run_in_executor(None, function)
        assert await asyncio.to_thread(begun.wait, peers.TIMEOUT)
        loop.call_soon(leave.set)
        await loop.shutdown_default_executor()
        assert len(ended) == 1 and not ended[0].is_alive()
        await future
        with pytest.raises(RuntimeError):
            loop.run_in_executor(None, function)

    run(main())


@clause("callbacks.executor.default-type")
def test_the_default_executor_is_a_thread_pool(loop, run):
    class NotAPool(concurrent.futures.Executor):
        pass

    for wrong in (None, object(), NotAPool()):
        with pytest.raises(TypeError):
            loop.set_default_executor(wrong)
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="default"))
    name = run(loop.run_in_executor(None, lambda: threading.current_thread().name))
    assert name.startswith("default")
