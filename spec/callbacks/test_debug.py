"""Debug mode: what it checks, logs and remembers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import sys
import time

import pytest

from .._kit import clause, peers

SCHEDULES = [("call_soon", ()), ("call_soon_threadsafe", ()), ("call_later", (0,)), ("call_at", (0,))]


async def coroutine_function():
    pass


@clause("callbacks.debug.accessors")
def test_debug_mode_is_set_and_read(loop):
    loop.set_debug(True)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False


@clause("callbacks.debug.accessors")
def test_debug_mode_may_be_changed_while_running(loop, tick):
    loop.call_soon(loop.set_debug, True)
    tick(2)
    assert loop.get_debug() is True


@clause("callbacks.debug.wrong-thread")
@pytest.mark.parametrize(("method", "args"), [entry for entry in SCHEDULES if entry[0] != "call_soon_threadsafe"])
def test_scheduling_from_the_wrong_thread_is_refused(loop, run, method, args):
    seen = []
    loop.set_debug(True)

    async def main():
        thread = peers.thread(getattr(loop, method), *args, seen.append, 1)
        with pytest.raises(RuntimeError):
            thread.result()
        getattr(loop, method)(*args, seen.append, "own thread")
        await asyncio.sleep(0.001)

    run(main())
    assert seen == ["own thread"]


@clause("callbacks.debug.wrong-thread")
def test_call_soon_threadsafe_is_for_any_thread(loop, run):
    seen = []
    loop.set_debug(True)

    async def main():
        peers.thread(loop.call_soon_threadsafe, seen.append, 1).result()
        await asyncio.sleep(0.001)

    run(main())
    assert seen == [1]


@clause("callbacks.debug.coroutine-callback")
@pytest.mark.parametrize(("method", "args"), SCHEDULES)
def test_coroutines_are_no_callbacks(loop, tick, method, args):
    loop.set_debug(True)
    coroutine = coroutine_function()
    for wrong in (coroutine_function, coroutine):
        with pytest.raises(TypeError):
            getattr(loop, method)(*args, wrong)
    coroutine.close()
    tick()


@clause("callbacks.debug.not-callable")
@pytest.mark.parametrize(("method", "args"), SCHEDULES)
def test_what_cannot_be_called_is_no_callback(loop, tick, method, args):
    loop.set_debug(True)
    for wrong in (None, 3, "text", object()):
        with pytest.raises(TypeError):
            getattr(loop, method)(*args, wrong)
    tick()


@clause("callbacks.types.not-callable")
@pytest.mark.parametrize(("method", "args"), SCHEDULES)
@pytest.mark.parametrize("wrong", [None, 3, "text"])
def test_without_debug_mode_it_is_an_error_sooner_or_later(loop, errors, tick, method, args, wrong, saw):
    seen = []
    loop.set_debug(False)
    try:
        getattr(loop, method)(*args, wrong)
    except TypeError:
        refused = 1
    else:
        refused = 0
    loop.call_soon(seen.append, "goes on")
    tick(3)
    assert seen == ["goes on"]
    assert [type(context["exception"]) for context in errors.take()] == [TypeError] * (1 - refused)
    if refused:
        saw("callbacks.types.not-callable", "TypeError when it is scheduled")
    else:
        saw("callbacks.types.not-callable", "TypeError reaches the exception handler when its turn comes")


def slow(seconds):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        pass


def warnings_of(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "asyncio" and record.levelno == logging.WARNING
    ]


@clause("callbacks.debug.slow-callback")
def test_a_slow_callback_is_logged(loop, tick, caplog):
    assert loop.slow_callback_duration == 0.1
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02
    loop.call_soon(slow, 0.03)
    tick()
    [message] = [message for message in warnings_of(caplog) if "slow" in message]
    assert float(re.search(r"took (\d+\.\d+) seconds", message)[1]) >= 0.02


@clause("callbacks.debug.slow-callback")
def test_a_slow_step_of_a_task_is_logged(loop, run, caplog):
    async def sluggish():
        slow(0.03)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.02
    run(loop.create_task(sluggish()))
    assert any("sluggish" in message for message in warnings_of(caplog))


@clause("callbacks.debug.slow-callback")
def test_neither_a_quick_callback_nor_one_without_debug_mode_is_logged(loop, tick, caplog):
    def quick():
        pass

    loop.set_debug(True)
    loop.slow_callback_duration = 1.0
    loop.call_soon(quick)
    tick()
    loop.set_debug(False)
    loop.slow_callback_duration = 0.001
    loop.call_soon(slow, 0.002)
    tick()
    assert [message for message in warnings_of(caplog) if "quick" in message or "slow" in message] == []


@clause("callbacks.debug.created-at")
@pytest.mark.parametrize(("method", "args"), SCHEDULES)
def test_a_handle_tells_where_it_was_created(loop, errors, tick, method, args):
    def fail():
        raise ValueError

    loop.set_debug(True)
    handle = getattr(loop, method)(*args, fail)
    line = inspect.currentframe().f_lineno - 1
    assert f"{os.path.basename(__file__)}:{line}" in repr(handle)
    tick(2)
    frame = errors.only()["source_traceback"][-1]
    assert (os.path.basename(frame.filename), frame.lineno) == (os.path.basename(__file__), line)


@clause("callbacks.debug.created-at")
def test_without_debug_mode_there_is_no_traceback(loop, errors, tick):
    def fail():
        raise ValueError

    loop.set_debug(False)
    handle = loop.call_soon(fail)
    assert "created at" not in repr(handle)
    tick()
    assert "source_traceback" not in errors.only()


@clause("callbacks.debug.coroutine-origin")
def test_the_origin_of_coroutines_is_tracked_while_running(loop, tick):
    seen = []
    before = sys.get_coroutine_origin_tracking_depth()
    for debug in (True, False):
        loop.set_debug(debug)
        loop.call_soon(lambda: seen.append(sys.get_coroutine_origin_tracking_depth()))
        tick()
        assert sys.get_coroutine_origin_tracking_depth() == before
    assert seen[0] > before and seen[1] == before
