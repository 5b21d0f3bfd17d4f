"""What the operations refuse, and when; that they are coroutines; what they leave behind."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import ssl
import warnings
import weakref
from contextlib import suppress

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import fill, pair
from .helpers import cancelled, open_fds, skip_unless_implemented, turns

OPERATIONS = {
    "recv": lambda loop, sock: loop.sock_recv(sock, 10),
    "recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(10)),
    "recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 10),
    "recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(10)),
    "sendall": lambda loop, sock: loop.sock_sendall(sock, b"x"),
    "sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
    "connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 9)),
    "accept": lambda loop, sock: loop.sock_accept(sock),
}
RECEIVING = ["recv", "recv_into", "recvfrom", "recvfrom_into"]
every_operation = pytest.mark.parametrize("operation", OPERATIONS)


@pytest.fixture(autouse=True)
def implemented(request, loop):
    """Skips an operation that the loop lacks."""
    if "operation" in request.fixturenames:
        skip_unless_implemented(loop, request.getfixturevalue("operation"))


@clause("sockets.checks.blocking-socket")
@every_operation
@pytest.mark.parametrize("timeout", [None, 1.0], ids=["blocking", "with-a-timeout"])
def test_a_blocking_socket_is_refused_in_debug_mode(loop, run, operation, timeout):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"x")
            ours.settimeout(timeout)
            with pytest.raises(ValueError):
                await OPERATIONS[operation](loop, ours)
            assert ours.recv(10) == b"x"

    loop.set_debug(True)
    run(main())


@clause("sockets.checks.ssl-socket")
@every_operation
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
def test_an_ssl_socket_is_refused(loop, run, operation, debug):
    async def main():
        ours, theirs = peers.pair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with theirs, context.wrap_socket(ours, do_handshake_on_connect=False) as sock, pytest.raises(TypeError):
            await OPERATIONS[operation](loop, sock)

    loop.set_debug(debug)
    run(main())


@clause("sockets.checks.not-a-socket")
@every_operation
@pytest.mark.parametrize("what", [None, 5, "text", object()], ids=lambda what: type(what).__name__)
def test_what_is_no_socket_is_refused(loop, run, operation, what, saw):
    async def main():
        with pytest.raises((AttributeError, TypeError)) as caught:
            await OPERATIONS[operation](loop, what)
        wrong_type = isinstance(caught.value, TypeError)
        saw("sockets.checks.not-a-socket", "TypeError" if wrong_type else "AttributeError")

    run(main())


@clause("sockets.checks.closed-socket")
@every_operation
def test_a_closed_socket_is_a_bad_file_descriptor(loop, run, operation):
    async def main():
        ours, theirs = peers.pair()
        with peers.listener() as listener, ours, theirs:
            sock = listener if operation == "accept" else ours
            sock.close()
            for _ in range(2):
                with pytest.raises(OSError) as caught:
                    await OPERATIONS[operation](loop, sock)
                assert caught.value.errno == errno.EBADF

    run(main())


@clause("sockets.checks.when-awaited")
@every_operation
def test_a_call_never_raises_but_its_await_does(loop, run, operation):
    async def main():
        awaitable = OPERATIONS[operation](loop, None)
        with pytest.raises((AttributeError, TypeError, ValueError)):
            await awaitable

    run(main())


@clause("sockets.checks.when-awaited")
def test_a_call_that_is_not_awaited_takes_and_sends_nothing(loop, run):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"data")
            calls = [OPERATIONS[operation](loop, ours) for operation in ("recv", "recv_into", "sendall")]
            await turns()
            assert ours.recv(10) == b"data"
            with pytest.raises(BlockingIOError):
                theirs.recv(10)
            for call in calls:
                call.close()

    run(main())


@clause("sockets.checks.when-awaited")
def test_the_socket_is_checked_when_the_operation_is_awaited(loop, run):
    async def main():
        with pair() as (ours, theirs):
            theirs.send(b"data")
            ours.setblocking(True)
            call = loop.sock_recv(ours, 10)
            ours.setblocking(False)
            assert await call == b"data"

    loop.set_debug(True)
    run(main())


@clause("sockets.checks.coroutine")
@every_operation
def test_an_operation_is_a_coroutine_that_can_be_closed_unawaited(loop, operation):
    with pair() as (ours, _), warnings.catch_warnings():
        warnings.simplefilter("error")
        coroutine = OPERATIONS[operation](loop, ours)
        assert asyncio.iscoroutine(coroutine)
        coroutine.close()
        del coroutine
        gc.collect()


@clause("sockets.checks.coroutine")
def test_tasks_are_made_of_operations(loop, run):
    async def main():
        with pair() as (ours, theirs), peers.listener() as listener:
            accepting = asyncio.create_task(loop.sock_accept(listener))
            receiving = loop.create_task(loop.sock_recv(ours, 10), name="receiving")
            await turns()
            assert not receiving.done()
            theirs.send(b"one")
            assert await receiving == b"one"
            theirs.send(b"two")
            assert await asyncio.wait_for(loop.sock_recv(ours, 10), 10) == b"two"
            theirs.send(b"three")
            assert await asyncio.gather(loop.sock_recv(ours, 10), loop.sock_sendall(ours, b"x")) == [b"three", None]
            await cancelled(accepting)

    run(main())


@clause("sockets.checks.coroutine")
@pytest.mark.parametrize("waits", [False, True], ids=["there", "waits"])
def test_an_operation_can_be_awaited_once(loop, run, waits):
    async def main():
        with pair() as (ours, theirs):
            coroutine = loop.sock_recv(ours, 10)
            if waits:
                loop.call_soon(theirs.send, b"one")
            else:
                theirs.send(b"one")
            assert await coroutine == b"one"
            theirs.send(b"two")
            with pytest.raises(RuntimeError):
                await coroutine
            assert await loop.sock_recv(ours, 10) == b"two"

    run(main())


@clause("sockets.checks.socket-of-a-transport")
@pytest.mark.parametrize("operation", [*RECEIVING, "sendall"])
def test_the_socket_of_a_live_transport_is_refused(loop, run, operation):
    async def main():
        ours, theirs = peers.pair()
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            if operation == "sendall":
                fill(ours)
            with pytest.raises(RuntimeError, match="is used by transport"):
                await OPERATIONS[operation](loop, ours)
            transport.abort()
            await turns()

    run(main())


@clause("sockets.checks.closed-loop")
@pytest.mark.parametrize("operation", [*RECEIVING, "sendall"])
def test_an_operation_of_a_closed_loop_cannot_wait(loop, operation):
    with pair() as (ours, _):
        fill(ours)
        coroutine = OPERATIONS[operation](loop, ours)
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            coroutine.send(None)


@clause("sockets.checks.error-leaves-nothing")
@pytest.mark.parametrize("operation", RECEIVING)
def test_after_an_error_the_socket_can_be_watched_and_used(loop, run, operation):
    async def main():
        ours, theirs = peers.pair()
        with ours:
            waiting = asyncio.create_task(OPERATIONS[operation](loop, ours))
            await turns()
            peers.reset(theirs)
            with pytest.raises(ConnectionResetError):
                await waiting
            assert not loop.remove_reader(ours.fileno())
            called = loop.create_future()
            loop.add_reader(ours.fileno(), lambda: called.done() or called.set_result(None))
            await called
            loop.remove_reader(ours.fileno())
            assert await loop.sock_recv(ours, 10) == b""

    run(main())


@clause("sockets.lifetime.releases")
@pytest.mark.parametrize("how", ["there", "waited", "failed", "cancelled"])
def test_the_loop_keeps_neither_the_socket_nor_the_buffer(loop, run, how):
    class Buffer(bytearray):
        pass

    async def use():
        ours, theirs = peers.pair()
        buffer = Buffer(10)
        refs = [weakref.ref(ours), weakref.ref(buffer)]
        if how == "there":
            theirs.sendall(b"x")
        task = asyncio.create_task(loop.sock_recv_into(ours, buffer))
        if how != "there":
            await turns()
        if how == "waited":
            theirs.sendall(b"x")
        elif how == "failed":
            peers.reset(theirs)
        elif how == "cancelled":
            task.cancel()
        with suppress(ConnectionResetError, asyncio.CancelledError):
            await task
        if how != "failed":
            fill(ours)
        sending = asyncio.create_task(loop.sock_sendall(ours, buffer))
        await turns()
        sending.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await sending
        ours.close()
        theirs.close()
        return refs

    async def main():
        refs = await use()
        await turns()
        gc.collect()
        assert [ref() for ref in refs] == [None, None]

    run(main())


@clause("sockets.lifetime.no-fds")
def test_a_thousand_operations_leave_no_fd(loop, run):
    async def once(listener):
        address = listener.getsockname()
        with socket.socket(listener.family, listener.type) as client:
            client.setblocking(False)
            _, (conn, _) = await asyncio.gather(loop.sock_connect(client, address), loop.sock_accept(listener))
            with conn:
                for _ in range(5):
                    await asyncio.gather(loop.sock_sendall(client, b"x"), loop.sock_recv(conn, 10))

    async def main():
        with peers.listener() as listener:
            await once(listener)
            gc.collect()
            before = open_fds()
            for _ in range(100):
                await once(listener)
            gc.collect()
            assert open_fds() == before

    run(main())
