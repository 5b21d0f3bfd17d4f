"""The default exception handler: the text it logs."""

from __future__ import annotations

import logging
import sys
import traceback

import pytest

from .._kit import clause


@pytest.fixture
def logged(loop, caplog):
    """`logged(context)`: the record that the default exception handler makes of a context."""

    def logged(context):
        caplog.clear()
        loop.default_exception_handler(context)
        [record] = caplog.records
        return record

    return logged


@pytest.fixture(autouse=True)
def _propagated(caplog):
    """Whatever the configuration of the logger, its records reach `caplog`."""
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@clause("errors.log.message")
def test_the_message_is_the_first_line(logged):
    record = logged({"message": "what went wrong", "extra": 1})
    assert record.getMessage().splitlines()[0] == "what went wrong"
    assert (record.name, record.levelno) == ("asyncio", logging.ERROR)


@clause("errors.log.no-message")
@pytest.mark.parametrize("context", [{}, {"message": ""}, {"message": None}])
def test_without_a_message_a_general_one_is_logged(logged, context):
    assert logged(context).getMessage().splitlines()[0] == "Unhandled exception in event loop"


@clause("errors.log.keys")
def test_the_other_keys_follow_by_name_a_line_each_with_their_repr(logged):
    class Thing:
        def __repr__(self):
            return "<a thing>"

    record = logged({"zeta": "text", "message": "first", "task": Thing(), "alpha": 1, "exception": raised(KeyError())})
    assert record.getMessage().splitlines() == ["first", "alpha: 1", "task: <a thing>", "zeta: 'text'"]


@clause("errors.log.exception")
def test_the_exception_is_logged_with_its_traceback(logged):
    error = raised(LookupError("of the callback"))
    record = logged({"message": "first", "exception": error})
    kind, value, frames = record.exc_info
    assert (kind, value, frames) == (LookupError, error, error.__traceback__)
    formatted = logging.Formatter().format(record)
    assert formatted.splitlines()[-1] == "LookupError: of the callback"
    assert "in raised" in formatted and "LookupError" not in record.getMessage()


@clause("errors.log.no-exception")
@pytest.mark.parametrize("context", [{"message": "first"}, {"message": "first", "exception": None}])
def test_without_an_exception_there_is_no_traceback(logged, context):
    record = logged(context)
    assert not record.exc_info
    try:
        raise ValueError("being handled, and of no concern")
    except ValueError:
        assert "ValueError" not in logging.Formatter().format(logged(context))


@clause("errors.log.source-traceback")
def test_where_a_thing_was_created_is_logged_as_a_traceback(logged):
    stack = traceback.extract_stack(sys._getframe(), limit=1)
    lines = logged({"message": "first", "source_traceback": stack}).getMessage().splitlines()
    assert lines[:2] == ["first", "source_traceback: Object created at (most recent call last):"]
    assert "test_where_a_thing_was_created_is_logged_as_a_traceback" in lines[2]


@clause("errors.log.handle-traceback")
def test_where_the_running_callback_was_scheduled_is_logged_in_debug_mode(loop, tick, caplog):
    def report():
        loop.default_exception_handler({"message": "first"})

    def schedule():
        loop.call_soon(report)

    for debug in (True, False):
        loop.set_debug(debug)
        schedule()
        tick()
    with_debug, without = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    lines = with_debug.splitlines()
    assert lines[:2] == ["first", "handle_traceback: Handle created at (most recent call last):"]
    assert "schedule" in lines[-2]
    assert without == "first"


@clause("errors.log.callback")
def test_the_log_names_the_callback_that_raised(loop, tick, caplog):
    def failing_callback():
        raise LookupError

    loop.set_exception_handler(None)
    loop.call_soon(failing_callback)
    tick()
    [record] = caplog.records
    first, second = record.getMessage().splitlines()
    assert first.startswith("Exception in callback ") and "failing_callback" in first
    assert second.startswith("handle: <Handle ") and "failing_callback" in second


@clause("errors.log.overridden-fails")
def test_a_default_handler_of_a_subclass_that_fails_is_logged_itself(loop, caplog):
    broken = LookupError("of the default handler")

    class Broken(type(loop)):
        def default_exception_handler(self, context):
            raise broken

    other = Broken()
    try:
        other.call_exception_handler({"message": "first"})
    finally:
        other.close()
    [record] = [record for record in caplog.records if record.name == "asyncio"]
    assert record.getMessage() == "Exception in default exception handler"
    assert record.exc_info[1] is broken


@clause("errors.log.overridden-used")
def test_the_default_handler_of_a_subclass_gets_what_nobody_else_handles(loop):
    contexts = []

    class Own(type(loop)):
        def default_exception_handler(self, context):
            contexts.append(context)

    other = Own()
    try:
        other.call_soon(int, "no number")
        other.call_soon(other.stop)
        other.run_forever()
    finally:
        other.close()
    [context] = contexts
    assert type(context["exception"]) is ValueError
