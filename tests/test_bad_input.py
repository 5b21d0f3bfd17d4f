"""Bad input gets the exception that stock asyncio raises, at the same moment, and the loop goes on.

Each case is a small program. It runs on stock asyncio and on the loop under test, in a child process each, and must do
the same on both: the steps it passed, the exception's type, its errno and its message, what reached the exception
handler. Then the loop must still carry an echo.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests import support
from tests.bad_input import CASES, Loop, loops, numbers, outcome, sockets, transports
from tests.test_threads import echo_once

assert loops and numbers and sockets and transports, "they register their cases"

pytestmark = pytest.mark.timeout(60)


def observe(name: str, factory: Callable[[], Loop], channel: Any) -> None:
    """In a child: run a case and send what happened: its steps and end, what was reported, whether the loop goes on."""
    warnings.simplefilter("ignore")
    function, _ = CASES[name]
    steps: list[object] = []
    contexts: list[tuple[str, object]] = []

    def step(what: object) -> None:
        steps.append(what)

    def handler(_loop: Loop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = re.sub(r"(Exception in callback).*", r"\1", context["message"])  # how a callback is shown may differ
        contexts.append((message, outcome(error) if error else None))

    loop = factory()
    loop.set_exception_handler(handler)
    asyncio.set_event_loop(None)
    try:
        function(loop, step)
        end: object = "returned"
    except BaseException as error:
        end = ("raised", *outcome(error))
    goes_on: object = "closed"
    if not loop.is_closed():
        loop.set_debug(False)
        loop.set_exception_handler(None)
        try:
            goes_on = loop.run_until_complete(asyncio.wait_for(echo_once(b"still alive"), 10))
            loop.close()
        except BaseException as error:
            goes_on = outcome(error)
    channel.send((steps, end, contexts, goes_on))
    channel.close()


def seen(name: str, factory: Callable[[], Loop]) -> tuple[Any, ...]:
    """What `observe` sends from a forked child, or how the child ended instead."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            observe(name, factory, theirs)
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    theirs.close()
    got: tuple[Any, ...] = ("hung",)
    try:
        if ours.poll(25):
            got = ours.recv()
        else:
            os.kill(pid, 9)
    except EOFError:
        got = ("died",)
    _, status = os.waitpid(pid, 0)
    ours.close()
    return got if os.waitstatus_to_exitcode(status) == 0 else (*got, "status", os.waitstatus_to_exitcode(status))


def without_messages(what: Any) -> Any:
    """The same without the messages of exceptions (the third item of `outcome`)."""
    if isinstance(what, tuple) and len(what) == 3 and isinstance(what[2], str) and isinstance(what[0], str):
        return what[:2]
    if isinstance(what, (list, tuple)):
        return type(what)(without_messages(item) for item in what)
    return what


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_met_as_on_stock_asyncio(name: str) -> None:
    expected = seen(name, asyncio.SelectorEventLoop)
    got = seen(name, support.factory())
    assert "died" not in expected and "hung" not in expected, f"stock asyncio: {expected}"
    if not CASES[name][1]:
        expected, got = without_messages(expected), without_messages(got)
    assert got == expected
    assert got[3] in (b"still alive", "closed")


# ---- no panic crosses into Python


def panics() -> Callable[[Any], None]:
    if not support.OURS:
        pytest.skip("panics are of Rust's")
    import tokioloop._tokioloop as extension

    found: Callable[[Any], None] | None = getattr(extension, "panic_next_event", None)
    if found is None:
        pytest.skip("this build has no failpoints (make build has; a release has not)")
    return found


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_panic_is_one_logged_error_and_costs_one_connection(side: str) -> None:
    panics()
    done = support.python(
        """
        import asyncio, sys
        from tests import support
        from tokioloop._tokioloop import panic_next_event

        contexts, lost = [], []

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                made.append(self)
            def data_received(self, data):
                self.transport.write(data)
            def connection_lost(self, exc):
                lost.append((self, exc))

        class Client(asyncio.Protocol):
            def __init__(self):
                self.got, self.lost = asyncio.Queue(), asyncio.get_running_loop().create_future()
            def data_received(self, data):
                self.got.put_nowait(data)
            def connection_lost(self, exc):
                self.lost.set_result(exc)

        made = []

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: contexts.append(context))
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            addr = server.sockets[0].getsockname()
            (one, first), (two, second) = [await loop.create_connection(Client, *addr) for _ in range(2)]
            one.write(b"1")
            two.write(b"2")
            assert (await first.got.get(), await second.got.get()) == (b"1", b"2")
            hit = one if sys.argv[1] == "client" else [
                echo.transport for echo in made
                if echo.transport.get_extra_info("peername") == one.get_extra_info("sockname")
            ][0]
            panic_next_event(hit)
            one.write(b"!")
            exc = await asyncio.wait_for(first.lost, 10)
            if sys.argv[1] == "client":
                print("lost with", type(exc).__name__)
            else:
                await asyncio.sleep(0)
                print("lost with", type([exc for echo, exc in lost if echo.transport is hit][0]).__name__)
            two.write(b"3")
            assert await second.got.get() == b"3"
            two.close()
            server.close()
            print([context["message"] for context in contexts], contexts[0]["transport"] is hit)

        with asyncio.Runner(loop_factory=support.factory()) as runner:
            runner.run(main())
        print("lives")
        """,
        side,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "lost with RuntimeError", done.stdout
    assert lines[1] == "['internal error in tokioloop (a panic was caught)'] True"
    assert lines[2:] == ["lives"]
