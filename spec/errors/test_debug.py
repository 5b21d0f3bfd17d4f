"""Debug mode: how it is switched on, and which slow or forgotten things it tells of."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import warnings

import pytest

from .._kit import clause, peers, programs


def busy(seconds):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        pass


def slow_callback(*_):
    busy(0.03)


@pytest.fixture
def slow(loop, caplog):
    """The messages about what was slow, in debug mode, where slow is 20 ms."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        yield lambda: [
            record.getMessage()
            for record in caplog.records
            if record.name == "asyncio" and record.levelno == logging.WARNING and "Executing" in record.getMessage()
        ]


@clause("errors.debug.environment")
@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ((), {}, False),
        ((), {"PYTHONASYNCIODEBUG": "1"}, True),
        ((), {"PYTHONASYNCIODEBUG": ""}, False),
        (("-X", "dev"), {}, True),
        (("-E",), {"PYTHONASYNCIODEBUG": "1"}, False),
    ],
)
def test_new_loops_are_in_debug_mode_where_python_is_told_so(loop_under_test, options, environment, expected):
    source = "loop = new_loop()\nprint(loop.get_debug(), flush=True)\nloop.close()\n"
    run = programs.run(loop_under_test, source, *options, **environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{expected}\n"


@clause("errors.debug.slow-text")
def test_the_log_of_a_slow_callback_has_its_handle_and_the_time(loop, tick, slow):
    loop.call_soon(slow_callback)
    tick()
    [message] = slow()
    assert message.startswith("Executing <Handle ") and "slow_callback" in message
    seconds = float(message.rpartition("took ")[2].removesuffix(" seconds"))
    assert seconds >= 0.03


@clause("errors.debug.slow-timers-and-watchers")
@pytest.mark.parametrize("kind", ["timer", "reader", "threadsafe", "future"])
def test_a_slow_callback_is_logged_however_it_was_scheduled(loop, run, slow, kind):
    ours, theirs = peers.unix_pair()

    def called(*_):
        slow_callback()
        loop.remove_reader(ours.fileno())
        loop.stop()

    with ours, theirs:
        if kind == "timer":
            loop.call_later(0, called)
        elif kind == "reader":
            theirs.send(b"readable")
            loop.add_reader(ours.fileno(), called)
        elif kind == "threadsafe":
            peers.thread(loop.call_soon_threadsafe, called).result()
        else:
            future = loop.create_future()
            future.add_done_callback(called)
            loop.call_soon(future.set_result, None)
        loop.run_forever()
    [message] = slow()
    assert "called" in message


@clause("errors.debug.slow-protocol")
def test_a_slow_method_of_a_protocol_is_logged(loop, run, slow):
    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            slow_callback()
            received.set_result(data)

    ours, theirs = peers.pair()
    received = loop.create_future()
    with theirs:
        transport, _ = run(loop.create_connection(Protocol, sock=ours))
        theirs.sendall(b"data")
        assert run(received) == b"data"
        transport.close()
        run(asyncio.sleep(0))
    assert len(slow()) == 1


@clause("errors.debug.slow-duration-changes")
def test_what_is_slow_may_be_changed_while_the_loop_runs(loop, tick, slow):
    def change():
        loop.slow_callback_duration = 3600

    loop.call_soon(slow_callback)
    loop.call_soon(change)
    loop.call_soon(slow_callback)
    tick()
    assert len(slow()) == 1
    loop.slow_callback_duration = 0.0
    loop.call_soon(len, ())
    tick()
    assert any("len" in message for message in slow()[1:]), "everything takes some time"


@clause("errors.debug.never-awaited")
def test_a_coroutine_that_nobody_awaits_tells_where_it_was_made(loop, run):
    async def forgotten():
        pass

    async def main():
        forgotten()

    for debug in (True, False):
        loop.set_debug(debug)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run(main())
        [text] = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
        assert "forgotten' was never awaited" in text
        assert ("Coroutine created at" in text and "in main" in text) is debug


@clause("errors.debug.origin-follows")
def test_switching_debug_mode_within_a_run_switches_the_origin_of_coroutines(loop, run):
    async def main():
        seen = []
        for debug in (True, False):
            loop.set_debug(debug)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(sys.get_coroutine_origin_tracking_depth() > before)
        return seen

    before = sys.get_coroutine_origin_tracking_depth()
    loop.set_debug(False)
    assert run(main()) == [True, False]
    assert sys.get_coroutine_origin_tracking_depth() == before


@clause("errors.repr.state")
def test_the_repr_of_a_loop_tells_its_state(loop, tick):
    seen = []
    loop.call_soon(lambda: seen.append(repr(loop)))
    tick()
    seen.append(repr(loop))
    loop.set_debug(True)
    seen.append(repr(loop))
    loop.set_debug(False)
    loop.close()
    seen.append(repr(loop))
    assert ["running=True" in shown for shown in seen] == [True, False, False, False]
    assert ["closed=True" in shown for shown in seen] == [False, False, False, True]
    assert ["debug=True" in shown for shown in seen][:3] == [loop.get_debug(), loop.get_debug(), True]
    assert all(type(loop).__name__ in shown for shown in seen)
