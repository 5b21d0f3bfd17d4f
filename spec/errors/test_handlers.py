"""Exception handlers that fail, change, stop the loop or see what happens around them."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest

from .._kit import clause


def fail(error):
    raise error


@clause("errors.handler.failure-tells-both")
def test_the_log_of_a_failing_handler_has_its_exception_and_the_first_context(loop, tick, caplog):
    def handler(_loop, _context):
        raise broken

    broken = LookupError("of the handler")
    first = ValueError("of the callback")
    loop.set_exception_handler(handler)
    loop.call_soon(fail, first)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        tick()
    [record] = [record for record in caplog.records if record.name == "asyncio"]
    lines = record.getMessage().splitlines()
    assert lines[0] == "Unhandled error in exception handler"
    assert lines[1].startswith("context: {") and "of the callback" in lines[1]
    assert record.exc_info[1] is broken


@clause("errors.handler.base-exception")
@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, BaseException])
def test_a_handler_that_fails_with_a_base_exception_does_not_end_the_run(loop, tick, caplog, kind):
    seen = []
    broken = kind()
    loop.set_exception_handler(lambda _loop, _context: fail(broken))
    loop.call_soon(fail, ValueError())
    loop.call_soon(seen.append, "goes on")
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        tick()
    assert seen == ["goes on"]
    assert [record.exc_info[1] for record in caplog.records if record.name == "asyncio"] == [broken]


@clause("errors.handler.failure-and-default-failure")
def test_where_the_default_handler_fails_too_the_loop_goes_on(loop, caplog):
    class Broken(type(loop)):
        def default_exception_handler(self, context):
            raise second

    first, second = LookupError("of the handler"), ValueError("of the default handler")
    seen = []
    other = Broken()
    other.set_exception_handler(lambda _loop, _context: fail(first))
    try:
        with caplog.at_level(logging.ERROR, logger="asyncio"):
            other.call_soon(fail, KeyError())
            other.call_soon(seen.append, "goes on")
            other.call_soon(other.stop)
            other.run_forever()
    finally:
        other.close()
    assert seen == ["goes on"]
    [record] = [record for record in caplog.records if record.name == "asyncio"]
    assert record.exc_info[1] is second and second.__context__ is first


@clause("errors.handler.not-asked-when-retrieved")
def test_an_exception_that_somebody_awaits_reaches_no_handler(loop, run, errors):
    async def main():
        task = loop.create_task(asyncio.sleep(0))
        with pytest.raises(LookupError):
            await asyncio.gather(task, failing())
        with pytest.raises(LookupError):
            await loop.create_task(failing())
        future = loop.create_future()
        future.set_exception(LookupError())
        with pytest.raises(LookupError):
            await future

    async def failing():
        raise LookupError

    run(main())
    assert errors == []


@clause("errors.handler.running-loop")
def test_the_handler_of_a_callback_runs_within_the_loop(loop, tick):
    seen = []
    loop.set_exception_handler(lambda _loop, _context: seen.append(asyncio.get_running_loop()))
    loop.call_soon(fail, ValueError())
    tick()
    assert seen == [loop]


@clause("errors.handler.replaces-itself")
def test_a_handler_may_put_another_in_its_place(loop, tick):
    def first(_loop, context):
        seen.append(("first", type(context["exception"])))
        loop.set_exception_handler(lambda _loop, context: seen.append(("second", type(context["exception"]))))

    seen = []
    loop.set_exception_handler(first)
    loop.call_soon(fail, ValueError())
    loop.call_soon(fail, LookupError())
    tick()
    assert seen == [("first", ValueError), ("second", LookupError)]


@clause("errors.handler.schedules-and-stops")
def test_a_handler_may_schedule_cancel_and_stop(loop, tick):
    def handler(_loop, context):
        later.cancel()
        loop.call_soon(seen.append, "scheduled by the handler")
        loop.stop()

    seen = []
    loop.set_exception_handler(handler)
    loop.call_soon(fail, ValueError())
    later = loop.call_soon(seen.append, "cancelled by the handler")
    loop.run_forever()
    assert "cancelled by the handler" not in seen
    tick()
    assert seen == ["scheduled by the handler"]


@clause("errors.handler.each-loop-its-own")
def test_each_loop_has_a_handler_of_its_own(new_loop):
    loops = [new_loop(), new_loop()]
    for number, loop in enumerate(loops):
        loop.call_soon(fail, ValueError(number))
        loop.call_soon(loop.stop)
    for loop in reversed(loops):
        loop.run_forever()
    assert [str(new_loop.errors_of(loop).only()["exception"]) for loop in loops] == ["0", "1"]


@clause("errors.handler.traceback-leads-to-the-culprit")
def test_the_traceback_leads_to_the_line_that_raised_and_has_the_cause(loop, errors, tick):
    def culprit():
        try:
            {}["missing"]
        except KeyError as error:
            raise LookupError("seen from outside") from error

    loop.call_soon(culprit)
    tick()
    error = errors.only()["exception"]
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    assert frame.tb_frame.f_code is culprit.__code__
    assert type(error.__cause__) is KeyError


@clause("errors.handler.exception-being-handled")
def test_no_exception_is_being_handled_in_the_next_callback(loop, errors, tick):
    seen = []
    loop.call_soon(fail, ValueError())
    loop.call_soon(lambda: seen.append(sys.exc_info()))
    tick()
    errors.only()
    assert seen == [(None, None, None)]


@clause("errors.raised.same-object")
def test_run_until_complete_raises_the_exception_itself_with_its_traceback(loop):
    async def inner():
        raise error

    async def main():
        await inner()

    error = LookupError()
    with pytest.raises(LookupError) as caught:
        loop.run_until_complete(main())
    assert caught.value is error
    names = [frame.name for frame in caught.traceback]
    assert names[-2:] == ["main", "inner"]


@clause("errors.raised.cancelled")
def test_run_until_complete_of_what_is_cancelled_raises_cancelled_error(loop, errors):
    async def main():
        asyncio.current_task().cancel("with a message")
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError) as caught:
        loop.run_until_complete(main())
    assert caught.value.args == ("with a message",)
    future = loop.create_future()
    loop.call_soon(future.cancel)
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(future)
    assert errors == []
