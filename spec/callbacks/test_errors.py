"""Exceptions that callbacks and exception handlers raise."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import weakref

import pytest

from .._kit import clause

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
EXITS = [KeyboardInterrupt, SystemExit]


class OtherBase(BaseException):
    """A BaseException that is no exit."""


def fail(error):
    raise error


@clause("callbacks.errors.reach-handler")
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
def test_an_exception_reaches_the_handler_as_loop_and_context(loop, tick, method):
    calls = []
    loop.set_exception_handler(lambda *args: calls.append(args))
    error = ValueError("of the callback")
    handle = getattr(loop, method)(fail, error)
    tick()
    [(handler_loop, context)] = calls
    assert handler_loop is loop
    assert type(context) is dict
    assert context["exception"] is error
    assert context["handle"] is handle
    assert isinstance(context["message"], str) and "fail" in context["message"]


@clause("callbacks.errors.loop-goes-on")
def test_an_exception_costs_no_other_callback(loop, errors, tick):
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_soon(fail, ValueError())
    loop.call_soon(seen.append, 2)
    loop.call_soon(fail, LookupError())
    loop.call_soon(seen.append, 3)
    tick()
    assert seen == [1, 2, 3]
    assert [type(context["exception"]) for context in errors.take()] == [ValueError, LookupError]
    loop.call_soon(seen.append, 4)
    tick()
    assert seen == [1, 2, 3, 4]


@clause("callbacks.errors.base-exceptions")
@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, OtherBase, StopIteration, RecursionError])
def test_any_other_exception_is_reported_too(loop, errors, tick, kind):
    seen = []
    loop.call_soon(fail, kind())
    loop.call_soon(seen.append, "next")
    tick()
    assert type(errors.only()["exception"]) is kind
    assert seen == ["next"]


@clause("callbacks.errors.exits-pass-through")
@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_leaves_the_run(loop, errors, kind):
    error = kind()
    loop.call_soon(fail, error)
    with pytest.raises(kind) as caught:
        loop.run_forever()
    assert caught.value is error and errors == []


@clause("callbacks.errors.after-exit")
@pytest.mark.parametrize("kind", EXITS)
def test_after_an_exit_the_loop_is_run_again(loop, tick, kind, saw):
    seen = []
    loop.call_soon(seen.append, "before")
    loop.call_soon(fail, kind())
    loop.call_soon(seen.append, "behind")
    with pytest.raises(kind):
        loop.run_forever()
    at_once = "behind" in seen
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    loop.call_soon(seen.append, "scheduled after")
    tick()
    assert seen == ["before", "behind", "scheduled after"]
    if at_once:
        saw("callbacks.errors.after-exit", "the rest of the batch is called before the exit leaves")
    else:
        saw("callbacks.errors.after-exit", "callbacks behind it are called by the next run")


@clause("callbacks.errors.exits-pass-through")
def test_a_subclass_of_an_exit_is_an_exit(loop, errors):
    class Exit(SystemExit):
        pass

    loop.call_soon(fail, Exit(3))
    with pytest.raises(Exit):
        loop.run_forever()
    assert errors == []


@clause("callbacks.errors.exits-of-tasks")
@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_of_the_awaited_task_leaves_run_until_complete(loop, errors, kind):
    async def main():
        await asyncio.sleep(0)
        raise kind

    with pytest.raises(kind):
        loop.run_until_complete(main())
    gc.collect()
    assert errors == []
    assert loop.run_until_complete(asyncio.sleep(0, "again")) == "again"


@clause("callbacks.errors.exits-of-tasks")
@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_of_another_task_leaves_run_until_complete(loop, run, kind):
    async def other():
        raise kind

    task = loop.create_task(other())
    future = loop.create_future()
    with pytest.raises(kind):
        loop.run_until_complete(future)
    assert task.done() and isinstance(task.exception(), kind)
    future.set_result("still usable")
    assert run(future) == "still usable"


@clause("callbacks.errors.exits-of-handler")
@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_of_the_handler_leaves_the_run(loop, tick, kind):
    seen = []
    loop.set_exception_handler(lambda _loop, _context: fail(kind()))
    loop.call_soon(fail, ValueError())
    loop.call_soon(seen.append, "behind")
    with pytest.raises(kind):
        loop.run_forever()
    tick()
    assert seen == ["behind"]


@clause("callbacks.errors.default-logs")
def test_without_a_handler_an_exception_is_logged(loop, tick, caplog):
    loop.set_exception_handler(None)
    error = ValueError("to be logged")
    loop.call_soon(fail, error)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        tick()
    [record] = [record for record in caplog.records if record.name == "asyncio"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[1] is error
    assert "fail" in record.getMessage()


@clause("callbacks.errors.handler-accessors")
def test_the_handler_is_set_read_and_restored(loop_factory, tick):
    loop = loop_factory()
    try:
        assert loop.get_exception_handler() is None

        def handler(_loop, _context):
            pass

        loop.set_exception_handler(handler)
        assert loop.get_exception_handler() is handler
        for wrong in ("handler", 3, object()):
            with pytest.raises(TypeError):
                loop.set_exception_handler(wrong)
        assert loop.get_exception_handler() is handler
        loop.set_exception_handler(None)
        assert loop.get_exception_handler() is None
    finally:
        loop.close()


@clause("callbacks.errors.handler-raises")
def test_an_exception_of_the_handler_is_logged(loop, tick, caplog):
    seen = []
    broken = LookupError("of the handler")
    loop.set_exception_handler(lambda _loop, _context: fail(broken))
    loop.call_soon(fail, ValueError())
    loop.call_soon(seen.append, "behind")
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        tick()
    assert seen == ["behind"]
    assert any(record.exc_info and record.exc_info[1] is broken for record in caplog.records)


@clause("callbacks.errors.handler-defers")
def test_a_handler_may_defer_to_the_default(loop, tick, caplog):
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    error = ValueError("deferred")
    loop.call_soon(fail, error)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        tick()
    assert any(record.exc_info and record.exc_info[1] is error for record in caplog.records)


@clause("callbacks.errors.call-handler")
def test_call_exception_handler_passes_the_context_on(loop, errors, caplog):
    context = {"message": "made by hand", "custom": object()}
    loop.call_exception_handler(context)
    assert errors.only() is context
    loop.set_exception_handler(None)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        loop.call_exception_handler({"message": "logged by hand"})
    assert any("logged by hand" in record.getMessage() for record in caplog.records)


@clause("callbacks.errors.handler-context")
def test_the_handler_runs_in_the_context_of_the_callback(loop, tick):
    seen = []
    loop.set_exception_handler(lambda _loop, _context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "of the callback")
    loop.call_soon(fail, ValueError(), context=context)
    tick()
    assert seen == ["of the callback"]


@clause("callbacks.errors.no-reference-kept")
def test_the_loop_lets_a_reported_exception_go(loop, errors, tick):
    class Local:
        pass

    def raises():
        local = Local()
        watched.append(weakref.ref(local))
        raise ValueError

    watched = []
    loop.call_soon(raises)
    tick()
    errors.only()
    gc.collect()
    assert [ref() for ref in watched] == [None]


@clause("callbacks.errors.no-reference-kept")
def test_the_loop_lets_an_exit_go(loop):
    class Local:
        pass

    watched = []

    def raises():
        local = Local()
        watched.append(weakref.ref(local))
        raise KeyboardInterrupt

    def attempt():
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_forever()

    loop.call_soon(raises)
    attempt()
    gc.collect()
    assert [ref() for ref in watched] == [None]
