"""`asyncio.run` and `asyncio.Runner` on the loop: what they ask of it."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading

import pytest

from .._kit import clause, peers

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class Factory:
    """A loop factory that keeps what it made."""

    def __init__(self, make):
        self._make = make
        self.made = []

    def __call__(self):
        self.made.append(self._make())
        return self.made[-1]

    @property
    def loop(self):
        [loop] = self.made
        return loop


@pytest.fixture
def factory(loop_factory):
    return Factory(loop_factory)


async def give(value):
    await asyncio.sleep(0)
    return value


async def fail(error):
    await asyncio.sleep(0)
    raise error


@clause("lifecycle.runner.result")
def test_a_runner_gives_results_and_exceptions_and_closes_the_loop(factory):
    async def check():
        return asyncio.get_running_loop() is factory.loop and asyncio.get_event_loop() is factory.loop

    error = LookupError("of the coroutine")
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.get_loop() is factory.loop
        assert runner.run(give(1)) == 1
        with pytest.raises(LookupError) as caught:
            runner.run(fail(error))
        assert caught.value is error
        assert runner.run(check()) is True
        assert not factory.loop.is_closed() and not factory.loop.is_running()
    assert factory.loop.is_closed()


@clause("lifecycle.runner.run-function")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run() takes a factory since CPython 3.12")
def test_asyncio_run_takes_the_factory(factory):
    assert asyncio.run(give(1), loop_factory=factory) == 1
    assert factory.loop.is_closed()
    with pytest.raises(LookupError):
        asyncio.run(fail(LookupError()), loop_factory=factory)
    assert [loop.is_closed() for loop in factory.made] == [True, True]


@clause("lifecycle.runner.cancels-tasks")
def test_what_still_runs_is_cancelled_and_waited_for(factory):
    seen = []

    async def background(name):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # what a task cleans up takes iterations of its own
            seen.append((name, asyncio.get_running_loop() is factory.loop))
            raise

    async def main():
        tasks.extend(asyncio.create_task(background(name)) for name in "ab")
        await asyncio.sleep(0)

    tasks = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
        assert seen == [], "between runs nothing is cancelled"
    assert sorted(seen) == [("a", True), ("b", True)]
    assert all(task.cancelled() for task in tasks)


@clause("lifecycle.runner.reports-late-errors")
def test_an_exception_of_a_cancelled_task_is_reported(factory):
    contexts = []
    error = LookupError("while it was cancelled")

    async def background():
        try:
            await asyncio.sleep(3600)
        finally:
            raise error

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: contexts.append(context))
        started.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    started = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    [context] = contexts
    assert context["message"] == "unhandled exception during asyncio.run() shutdown"
    assert context["exception"] is error and context["task"] is started[0]


@clause("lifecycle.runner.finalizes-asyncgens")
def test_open_asynchronous_generators_are_closed_within_the_loop(factory):
    seen = []

    async def generate():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append(asyncio.get_running_loop() is factory.loop)

    async def main():
        kept.append(generate())
        return await anext(kept[0])

    kept = []
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == 1
        assert seen == []
    assert seen == [True]


@clause("lifecycle.runner.closes-executor")
def test_the_threads_of_the_default_executor_have_ended(factory):
    before = set(threading.enumerate())
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, seen.append, "awaited")
        loop.run_in_executor(None, seen.append, "not awaited")

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert set(threading.enumerate()) == before
    assert seen == ["awaited", "not awaited"]


@clause("lifecycle.runner.refuses-nested")
def test_within_a_running_loop_it_is_refused(factory):
    started = []

    async def inner():
        started.append(1)

    async def main():
        for attempt in (asyncio.run, asyncio.Runner(loop_factory=factory).run):
            coroutine = inner()
            with pytest.raises(RuntimeError):
                attempt(coroutine)
            coroutine.close()
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) is factory.loop, "it goes on, and no other loop was made"
    assert started == []


@clause("lifecycle.runner.debug")
@pytest.mark.parametrize("debug", [True, False, None])
def test_debug_reaches_the_loop(loop_factory, debug):
    async def main():
        return asyncio.get_running_loop().get_debug()

    bare = loop_factory()
    expected = bare.get_debug() if debug is None else debug
    bare.close()
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        assert runner.run(main()) is expected


@clause("lifecycle.runner.one-context")
def test_all_runs_of_a_runner_have_one_context(factory):
    async def exchange(value):
        before = var.get()
        var.set(value)
        await asyncio.sleep(0)
        return before, var.get()

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(exchange("first")) == ("unset", "first")
        assert runner.run(exchange("second")) == ("first", "second")
        other = contextvars.copy_context()
        other.run(var.set, "of another")
        assert runner.run(exchange("third"), context=other) == ("of another", "third")
        assert runner.run(exchange("fourth")) == ("second", "fourth")
    assert other[var] == "third" and var.get() == "unset"


@clause("lifecycle.runner.interrupt-cancels")
def test_an_interrupt_of_a_busy_task_cancels_it_at_its_next_await(factory):
    seen = []

    async def main():
        signal.raise_signal(signal.SIGINT)
        seen.append("goes on to its next await")
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            seen.append("cleaned up")

    with asyncio.Runner(loop_factory=factory) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert runner.run(give("again")) == "again"
    assert seen == ["goes on to its next await", "cleaned up"]


@clause("lifecycle.runner.interrupt-declined")
def test_a_task_that_declines_to_be_cancelled_ends_as_it_likes(factory):
    async def main():
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "declined"

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == "declined"


@clause("lifecycle.runner.second-interrupt")
def test_a_second_interrupt_is_raised_on_the_spot(factory):
    seen = []

    async def main():
        signal.raise_signal(signal.SIGINT)
        seen.append("first")
        signal.raise_signal(signal.SIGINT)
        seen.append("never reached")

    with asyncio.Runner(loop_factory=factory) as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert seen == ["first"]
    assert factory.loop.is_closed()


@clause("lifecycle.runner.handler-put-back")
def test_the_handler_of_interrupts_is_as_it_was(factory):
    async def main():
        return signal.getsignal(signal.SIGINT)

    def own(*_):
        pass

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, own)
        assert runner.run(main()) is own, "a handler of the program's own is left alone"
        assert signal.getsignal(signal.SIGINT) is own
    assert signal.getsignal(signal.SIGINT) is own


@clause("lifecycle.runner.other-thread")
def test_a_runner_in_another_thread_leaves_signals_alone(factory):
    async def main():
        await asyncio.sleep(0.001)
        return signal.getsignal(signal.SIGINT), threading.get_ident()

    def work():
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    handler, ident = peers.thread(work).result()
    assert handler is signal.default_int_handler and ident != threading.get_ident()
    assert factory.loop.is_closed()
