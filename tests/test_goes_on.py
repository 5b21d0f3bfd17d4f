"""An ordinary exception ends no run of the loop, wherever it comes from: it is reported, and nothing is lost over it.

Stock asyncio keeps that for callbacks only; what it lets out of `run_forever()` is skipped there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import Any

import pytest

from spec._kit import peers
from tests import support

pytestmark = pytest.mark.timeout(60)
ours_only = pytest.mark.skipif(not support.OURS, reason="ends the run of stock asyncio's loop, or is a hook of ours")


class Reports(list[tuple[str, str]]):
    """An exception handler: message and type of the exception."""

    def __call__(self, _loop: Any, context: dict[str, Any]) -> None:
        self.append((context["message"], type(context.get("exception")).__name__))


def fails(*_: object, **__: object) -> Any:
    raise LookupError("of user code")


def goes_on(loop: Any) -> bool:
    """Do callbacks, timers and I/O still run?"""

    async def main() -> bool:
        ours, theirs = peers.pair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"x")
            await asyncio.sleep(0.001)  # clause-delay: a timer
            return bool(await loop.sock_recv(ours, 1) == b"x")

    return bool(loop.run_until_complete(asyncio.wait_for(main(), 10)))


def run(loop: Any, turns: int = 5) -> None:
    """Some turns of one run."""
    loop.run_until_complete(_turns(turns))


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_an_audit_hook_that_refuses_the_socket_of_a_connection_costs_that_connection() -> None:
    said = support.check(
        """
        import asyncio, socket, sys
        from tests import support

        refuse = [1]

        def hook(event, args):
            if event == "socket.__new__" and refuse and len(args) > 1 and sys._getframe(1).f_code.co_name != "main":
                if asyncio._get_running_loop() is not None:
                    refuse.pop()
                    raise RuntimeError("no sockets")

        class Serves(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(b"served")
                transport.close()

        async def main():
            loop = asyncio.get_running_loop()
            reports = []
            loop.set_exception_handler(lambda loop, context: reports.append(str(context["exception"])))
            server = await loop.create_server(Serves, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            before = support.fds()
            sys.addaudithook(hook)

            def client():
                # Of its own thread, where no loop runs.
                with socket.create_connection(address, 10) as conn:
                    return conn.recv(10)

            first = loop.run_in_executor(None, client)
            while not reports:
                await asyncio.sleep(0.001)  # clause-delay: turns that wait for I/O
            if support.OURS:
                assert await first == b"", "it was closed"
            assert await loop.run_in_executor(None, client) == b"served"
            print(reports)
            if support.OURS:
                await asyncio.sleep(0)
                assert support.fds() == before
            server.close()

        loop = support.new_loop()
        loop.run_until_complete(main())
        if not support.OURS:
            import os
            print("['no sockets']")
            sys.stdout.flush()
            os._exit(0)  # stock asyncio leaves the descriptor, and the client with it
        """
    )
    assert said.splitlines()[0] == "['no sockets']"


@pytest.mark.parametrize("kind", [LookupError, asyncio.CancelledError, GeneratorExit, BaseException])
def test_what_a_callback_raises_is_reported(loop: Any, kind: type[BaseException]) -> None:
    def raises() -> None:
        raise kind

    reports = Reports()
    loop.set_exception_handler(reports)
    loop.call_soon(raises)
    loop.call_later(0, raises)
    run(loop)
    assert [name for _, name in reports] == [kind.__name__] * 2
    assert goes_on(loop)


@ours_only
def test_a_callback_whose_repr_fails_is_reported_with_what_it_raised(loop: Any) -> None:
    class Shy:
        def __call__(self) -> None:
            raise KeyError("of the callback")

        def __repr__(self) -> str:
            raise LookupError("of the repr")

    seen: list[BaseException] = []
    loop.set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    loop.call_soon(Shy())
    run(loop)
    [error] = seen
    assert isinstance(error, LookupError) and isinstance(error.__context__, KeyError)
    assert goes_on(loop)


@ours_only
@pytest.mark.parametrize("where", ["call_exception_handler", "logging"])
def test_reports_that_fail_end_no_run(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: unraisable.append(told.exc_value))
    loop = support.new_loop()
    if where == "logging":
        monkeypatch.setattr(logging.getLogger("asyncio"), "error", fails)
    else:
        loop.close()
        loop = type("Broken", (type(loop),), {where: fails})()
    try:
        loop.call_soon(fails)
        run(loop)
        assert [type(error) for error in unraisable] == [LookupError]
        assert goes_on(loop)
    finally:
        loop.close()


class Lost(asyncio.Protocol):
    """Notes that it lost its connection."""

    lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@ours_only
@pytest.mark.parametrize("kind", ["stream", "datagram"])
@pytest.mark.parametrize("method", ["done", "set_result"])
def test_a_waiter_that_fails_is_reported(loop: Any, kind: str, method: str) -> None:
    class Waiter:
        def done(self) -> bool:
            return False

        set_result = set_exception = done

    waiter = Waiter()
    setattr(waiter, method, fails)
    reports = Reports()
    loop.set_exception_handler(reports)
    protocol = Lost()
    sock = socket.socketpair()[0] if kind == "stream" else socket.socket(type=socket.SOCK_DGRAM)
    sock.setblocking(False)
    if kind == "stream":
        transport = loop._make_socket_transport(sock, protocol, waiter)
    else:
        transport = loop._make_datagram_transport(sock, protocol, None, waiter)
    run(loop)
    assert reports == [("Unhandled exception in event loop", "LookupError")]
    transport.close()
    run(loop)
    assert protocol.lost and sock.fileno() == -1
    assert goes_on(loop)


@ours_only
@pytest.mark.parametrize("which", ["close", "detach", "both"])
def test_a_connection_that_is_lost_is_let_go_of_whatever_fails(loop: Any, which: str) -> None:
    class Closes(socket.socket):
        def close(self) -> None:
            super().close()
            if which != "detach":
                fails()

    class Server:
        attached = 0

        def _attach(self, *_: object) -> None:
            self.attached += 1

        def _detach(self, *_: object) -> None:
            self.attached -= 1
            if which != "close":
                fails()

    reports = Reports()
    loop.set_exception_handler(reports)
    server, protocol = Server(), Lost()
    ours, theirs = socket.socketpair()
    with theirs:
        sock = Closes(fileno=ours.detach())
        sock.setblocking(False)
        transport = loop._make_socket_transport(sock, protocol, server=server)
        run(loop)
        transport.abort()
        run(loop)
        assert protocol.lost and server.attached == 0 and theirs.recv(1) == b""
    assert [name for _, name in reports] == ["LookupError"] * (2 if which == "both" else 1)
    assert goes_on(loop)


@ours_only
@pytest.mark.parametrize("attribute", ["slow_callback_duration"])
def test_debug_mode_that_fails_ends_no_run(loop: Any, attribute: str) -> None:
    reports = Reports()
    loop.set_exception_handler(reports)
    loop.set_debug(True)
    setattr(loop, attribute, "no number")
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    run(loop)
    setattr(loop, attribute, 10.0)
    loop.set_debug(False)
    assert seen == [1] and {name for _, name in reports} == {"TypeError"}
    assert goes_on(loop)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_passes_through_does(loop: Any, kind: type[BaseException]) -> None:
    def raises() -> None:
        raise kind

    seen: list[int] = []
    loop.call_soon(raises)
    loop.call_soon(seen.append, 1)
    with pytest.raises(kind):
        loop.run_forever()
    assert not seen
    run(loop)
    assert seen == [1]
