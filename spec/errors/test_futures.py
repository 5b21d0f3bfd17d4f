"""Exceptions of futures, tasks and asynchronous generators that nobody takes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os

import pytest

from .._kit import clause


@clause("errors.future.never-retrieved")
def test_a_future_that_goes_with_an_exception_reports_it(loop, errors):
    error = LookupError()
    future = loop.create_future()
    future.set_exception(error)
    shown = repr(future)
    del future
    gc.collect()
    context = errors.only()
    assert context["message"] == "Future exception was never retrieved"
    assert context["exception"] is error
    assert repr(context["future"]) == shown


@clause("errors.future.retrieved")
def test_a_future_whose_exception_was_looked_at_reports_nothing(loop, errors):
    def look(future):
        future.exception()

    def take(future):
        with pytest.raises(LookupError):
            future.result()

    def cancel(future):
        future.cancel()

    for done in (look, take, cancel):
        future = loop.create_future()
        if done is not cancel:
            future.set_exception(LookupError())
        done(future)
        del future
        gc.collect()
    assert errors == []


@clause("errors.future.created-at")
def test_in_debug_mode_a_future_tells_where_it_was_created(loop, errors):
    loop.set_debug(True)
    future = loop.create_future()
    line = inspect.currentframe().f_lineno - 1
    assert "created at" in repr(future)
    future.set_exception(LookupError())
    del future
    gc.collect()
    frames = errors.only()["source_traceback"]
    assert (os.path.basename(__file__), line) in [(os.path.basename(frame.filename), frame.lineno) for frame in frames]


@clause("errors.future.done-callback")
def test_a_done_callback_that_raises_costs_no_other(loop, errors, tick):
    def fail(future):
        raise LookupError

    seen = []
    future = loop.create_future()
    future.add_done_callback(fail)
    future.add_done_callback(lambda future: seen.append(future.result()))
    future.set_result("result")
    tick()
    assert seen == ["result"]
    context = errors.only()
    assert type(context["exception"]) is LookupError and isinstance(context["handle"], asyncio.Handle)


@clause("errors.future.stop-iteration")
def test_a_future_does_not_take_stop_iteration_as_it_is(loop, run, saw):
    future = loop.create_future()
    try:
        future.set_exception(StopIteration("would end the generator that awaits"))
    except TypeError:
        future.set_result(None)
        saw("errors.future.stop-iteration", "set_exception raises TypeError")
        return
    with pytest.raises(RuntimeError):
        run(future)
    saw("errors.future.stop-iteration", "the future raises RuntimeError")


@clause("errors.task.destroyed-pending")
def test_a_task_that_goes_while_it_waits_reports_it(loop, errors, tick):
    async def wait():
        await loop.create_future()  # which nobody else knows

    loop.create_task(wait(), name="forgotten")
    tick()
    gc.collect()
    context = errors.only()
    assert context["message"] == "Task was destroyed but it is pending!"
    assert context["task"].get_name() == "forgotten"
    assert "exception" not in context


@clause("errors.task.context-keys")
def test_a_task_whose_exception_nobody_took_is_the_future_of_the_context(loop, errors, tick):
    async def fail():
        raise LookupError

    loop.set_debug(True)
    loop.create_task(fail(), name="forgotten")
    line = inspect.currentframe().f_lineno - 1
    tick(2)
    gc.collect()
    context = errors.only()
    assert context["message"] == "Task exception was never retrieved"
    assert type(context["exception"]) is LookupError
    assert context["future"].get_name() == "forgotten"
    assert any(frame.lineno == line for frame in context["source_traceback"])


@clause("errors.task.handler-context")
def test_the_handler_runs_in_the_context_of_the_task(loop, tick):
    async def fail():
        var.set("of the task")
        raise LookupError

    var = contextvars.ContextVar("var", default="unset")
    seen = []
    loop.set_exception_handler(lambda _loop, _context: seen.append(var.get()))
    loop.create_task(fail())
    tick(2)
    gc.collect()
    assert seen == ["of the task"]


@clause("errors.task.not-a-coroutine")
@pytest.mark.parametrize("wrong", [None, 3, len, object()])
def test_create_task_of_no_coroutine_raises_at_once(loop, errors, tick, wrong):
    with pytest.raises(TypeError):
        loop.create_task(wrong)
    tick()
    assert asyncio.all_tasks(loop) == set() and errors == []


@clause("errors.task.yields-nonsense")
def test_a_task_that_awaits_what_no_loop_knows_gets_runtime_error(loop, run):
    class Nonsense:
        def __await__(self):
            yield "nonsense"

    async def main():
        with pytest.raises(RuntimeError):
            await Nonsense()
        return "goes on"

    assert run(main()) == "goes on"


@clause("errors.task.foreign-future")
def test_a_task_that_awaits_a_future_of_another_loop_gets_runtime_error(run, new_loop):
    future = new_loop().create_future()

    async def main():
        with pytest.raises(RuntimeError):
            await future
        return "goes on"

    assert run(main()) == "goes on"


@clause("errors.asyncgen.shutdown-fails")
def test_a_generator_that_fails_while_shut_down_is_reported_and_costs_no_other(loop, run, errors):
    error = LookupError("while it was closed")
    seen = []

    async def failing():
        try:
            yield 1
        finally:
            raise error

    async def fine():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def main():
        kept.extend([failing(), fine()])
        for generator in kept:
            await anext(generator)
        await loop.shutdown_asyncgens()

    kept = []
    run(main())
    context = errors.only()
    assert context["message"].startswith("an error occurred during closing of asynchronous generator ")
    assert context["exception"] is error and context["asyncgen"] is kept[0]
    assert seen == ["closed"]


@clause("errors.asyncgen.dropped-fails")
def test_a_dropped_generator_that_fails_while_closed_is_reported(loop, run, errors):
    error = LookupError("while it was closed")

    async def failing():
        try:
            yield 1
        finally:
            raise error

    async def main():
        generator = failing()
        await anext(generator)
        del generator
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()

    run(main())
    assert errors.only()["exception"] is error


@clause("errors.asyncgen.not-iterated")
def test_a_generator_that_was_never_iterated_is_no_concern_of_the_loop(loop, run, errors):
    async def generate():
        yield 1

    async def main():
        kept.append(generate())
        await loop.shutdown_asyncgens()

    kept = []
    run(main())
    kept.clear()
    gc.collect()
    assert errors == []
