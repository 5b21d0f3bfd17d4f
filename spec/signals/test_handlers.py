"""Handlers: how they are called, and what they may do."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading

import pytest

from .._kit import clause
from .helpers import FIRST, SECOND, send, send_from_thread


@clause("signals.handler.called")
def test_the_callback_gets_its_arguments_once_in_the_thread_of_the_loop(loop, tick):
    seen = []
    marker = object()

    def handler(*args):
        seen.append((args, threading.get_ident(), asyncio.get_running_loop() is loop))

    loop.add_signal_handler(FIRST, handler, 1, marker)
    loop.call_soon(send, FIRST)
    tick(5)
    ((args, thread, current),) = seen
    assert args == (1, marker) and args[1] is marker
    assert thread == threading.get_ident() and current


@clause("signals.handler.called")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, signal.SIGRTMIN])
def test_any_signal_that_can_be_caught_has_its_handler(loop, number):
    loop.add_signal_handler(number, loop.stop)
    loop.call_soon(send, number)
    loop.run_forever()
    assert loop.remove_signal_handler(number)


@clause("signals.handler.called")
def test_a_number_and_the_member_of_the_enumeration_are_the_same_signal(loop, tick):
    seen = []
    loop.add_signal_handler(int(FIRST), seen.append, "by number")
    loop.call_soon(send, FIRST)
    tick(5)
    assert seen == ["by number"]
    assert loop.remove_signal_handler(FIRST)


@clause("signals.handler.not-inline")
def test_the_callback_waits_for_the_callback_that_runs(loop, tick):
    seen = []

    def busy():
        send(FIRST)
        send_from_thread(FIRST)
        seen.append("busy")

    loop.add_signal_handler(FIRST, seen.append, "handler")
    loop.call_soon(busy)
    loop.call_soon(seen.append, "was ready")
    tick(5)
    assert seen[:3] == ["busy", "was ready", "handler"]


@clause("signals.handler.interacts")
def test_the_callback_makes_a_task_sets_a_future_and_schedules(loop, run):
    async def work():
        await asyncio.sleep(0)
        return "worked"

    async def main():
        future, tasks = loop.create_future(), []

        def handler():
            tasks.append(loop.create_task(work()))
            loop.call_soon(future.set_result, "set")

        loop.add_signal_handler(FIRST, handler)
        send(FIRST)
        return await future, await tasks[0]

    assert run(main()) == ("set", "worked")


@clause("signals.handler.interacts")
def test_the_callback_stops_the_loop(loop):
    loop.add_signal_handler(FIRST, loop.stop)
    loop.call_soon(send, FIRST)
    loop.run_forever()
    assert not loop.is_running()


@clause("signals.handler.interacts")
def test_the_callback_removes_itself_and_adds_another(loop, tick):
    seen = []

    def handler():
        assert loop.remove_signal_handler(FIRST)
        loop.add_signal_handler(SECOND, seen.append, "second")
        send(SECOND)

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(send, FIRST)
    tick(8)
    assert seen == ["second"]
    assert not loop.remove_signal_handler(FIRST)


@clause("signals.handler.interacts")
def test_the_callback_replaces_itself(loop, tick):
    seen = []

    def handler():
        seen.append("old")
        loop.add_signal_handler(FIRST, seen.append, "new")
        send(FIRST)

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(send, FIRST)
    tick(8)
    assert seen == ["old", "new"]


@clause("signals.handler.replaced")
def test_the_second_handler_replaces_the_first(loop, tick):
    seen = []
    loop.add_signal_handler(FIRST, seen.append, "old")
    loop.add_signal_handler(FIRST, seen.append, "new")
    loop.call_soon(send, FIRST)
    tick(5)
    assert seen == ["new"]
    assert loop.remove_signal_handler(FIRST)
    assert not loop.remove_signal_handler(FIRST)


@clause("signals.handler.context")
def test_the_callbacks_run_in_one_copy_of_the_context_of_the_adding(loop, tick):
    var = contextvars.ContextVar("var", default="default")
    seen = []

    def handler():
        seen.append(var.get())
        var.set(f"set by call {len(seen)}")

    var.set("when added")
    loop.add_signal_handler(FIRST, handler)
    var.set("later")
    for _ in range(3):
        loop.call_soon(send, FIRST)
        tick(5)
    assert seen == ["when added", "set by call 1", "set by call 2"]
    assert var.get() == "later"


@clause("signals.handler.exception")
def test_an_exception_is_reported_and_the_handler_stays(loop, tick, errors):
    calls = []

    def handler():
        calls.append(len(calls))
        if len(calls) == 1:
            raise LookupError("of the handler")

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(send, FIRST)
    tick(5)
    context = errors.only()
    assert isinstance(context["exception"], LookupError)
    loop.call_soon(send, FIRST)
    tick(5)
    assert calls == [0, 1]


@clause("signals.handler.exit")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_raised_by_the_callback_leaves_the_run(loop, run, kind):
    def handler():
        raise kind

    loop.add_signal_handler(FIRST, handler)
    loop.call_soon(send, FIRST)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    assert run(asyncio.sleep(0.001, "goes on")) == "goes on"
    assert loop.remove_signal_handler(FIRST)


@clause("signals.handler.returns-none")
def test_adding_returns_nothing(loop):
    assert loop.add_signal_handler(FIRST, print) is None
    assert loop.add_signal_handler(FIRST, print) is None
