"""Operations that are cancelled or time out, at any moment: no byte, no connection, no fd is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import drain, fill, pair
from .helpers import cancelled, datagram, open_fds, skip_unless_implemented, turns

OPERATIONS = ["recv", "recv_into", "recvfrom", "recvfrom_into"]


@pytest.fixture(autouse=True)
def implemented(request, loop):
    """Skips an operation that the loop lacks."""
    if "operation" in request.fixturenames:
        skip_unless_implemented(loop, request.getfixturevalue("operation"))


async def receive(loop, sock, operation):
    """Receive by the named operation; the data."""
    buffer = bytearray(100)
    if operation == "recv":
        return await loop.sock_recv(sock, 100)
    if operation == "recvfrom":
        return (await loop.sock_recvfrom(sock, 100))[0]
    if operation == "recv_into":
        return bytes(buffer[: await loop.sock_recv_into(sock, buffer)])
    return bytes(buffer[: (await loop.sock_recvfrom_into(sock, buffer))[0]])


@contextlib.contextmanager
def ends(operation):
    """The receiving socket and what sends to it."""
    if "from" in operation:
        with datagram() as ours, datagram() as theirs:
            yield ours, lambda data: theirs.sendto(data, ours.getsockname())
    else:
        with pair() as (ours, theirs):
            yield ours, theirs.send


@clause("sockets.cancel.while-waiting")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("times", [1, 5])
def test_what_arrives_after_a_cancellation_is_for_the_next_receive(loop, run, operation, times):
    async def main():
        with ends(operation) as (ours, send):
            for number in range(5):
                for _ in range(times):
                    waiting = asyncio.create_task(receive(loop, ours, operation))
                    await turns()
                    await cancelled(waiting)
                send(b"%d" % number)
                await turns()
                assert await receive(loop, ours, operation) == b"%d" % number

    run(main())


@clause("sockets.cancel.while-waiting")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_receive_can_follow_a_cancelled_one_at_once(loop, run, operation):
    async def main():
        with ends(operation) as (ours, send):
            first = asyncio.create_task(receive(loop, ours, operation))
            await turns()
            first.cancel()
            second = asyncio.create_task(receive(loop, ours, operation))
            await turns()
            assert first.cancelled()
            assert not second.done()
            send(b"data")
            assert await second == b"data"

    run(main())


@clause("sockets.cancel.before-start")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_task_cancelled_before_its_first_step_takes_nothing(loop, run, operation):
    async def main():
        with ends(operation) as (ours, send):
            send(b"data")
            await cancelled(asyncio.create_task(receive(loop, ours, operation)))
            assert await receive(loop, ours, operation) == b"data"

    run(main())


@clause("sockets.cancel.as-data-arrives")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_cancellation_in_the_moment_the_data_arrives_takes_nothing(loop, run, operation):
    async def main():
        with ends(operation) as (ours, send):
            for number in range(5):
                waiting = asyncio.create_task(receive(loop, ours, operation))
                await turns()
                send(b"%d" % number)
                await cancelled(waiting)
                assert await receive(loop, ours, operation) == b"%d" % number

    run(main())


@clause("sockets.cancel.after-readiness")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("later", range(6))
def test_a_cancellation_some_iterations_after_the_data_came_takes_all_or_nothing(loop, run, operation, later):
    async def main():
        with ends(operation) as (ours, send):
            waiting = asyncio.create_task(receive(loop, ours, operation))
            await turns()
            send(b"data")
            await turns(later)
            waiting.cancel()
            try:
                got = await waiting
            except asyncio.CancelledError:
                async with asyncio.timeout(2):
                    got = await receive(loop, ours, operation)
            assert got == b"data"

    run(main())


@clause("sockets.cancel.accept-after-readiness")
@pytest.mark.parametrize("later", range(6))
def test_an_accept_cancelled_some_iterations_after_a_client_came_loses_no_client(loop, run, later):
    async def main():
        with peers.listener() as listener:
            with socket.create_connection(listener.getsockname(), 15):
                (await loop.sock_accept(listener))[0].close()
            before = open_fds()
            waiting = asyncio.ensure_future(loop.sock_accept(listener))
            await turns()
            with socket.create_connection(listener.getsockname(), 15) as client:
                await turns(later)
                waiting.cancel()
                try:
                    conn, address = await waiting
                except asyncio.CancelledError:
                    async with asyncio.timeout(2):
                        conn, address = await loop.sock_accept(listener)
                assert address == client.getsockname()
                conn.close()
            del waiting
            await turns()
            gc.collect()
            assert open_fds() == before

    run(main())


@clause("sockets.cancel.timeout")
@pytest.mark.parametrize("operation", [*OPERATIONS, "accept", "sendall"])
def test_a_waiting_operation_times_out_not_before_its_time(loop, run, operation):
    async def main():
        with contextlib.ExitStack() as stack:
            if operation == "accept":
                listener = stack.enter_context(peers.listener())
                call = loop.sock_accept(listener)
            elif operation == "sendall":
                ours, theirs = stack.enter_context(pair())
                filled = fill(ours)
                call = loop.sock_sendall(ours, b"never")
            else:
                ours, send = stack.enter_context(ends(operation))
                call = receive(loop, ours, operation)
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.05)  # clause-delay
            assert time.monotonic() - started >= 0.05
            if operation == "accept":
                with socket.create_connection(listener.getsockname(), 15) as client:
                    conn, address = await loop.sock_accept(listener)
                    conn.close()
                    assert address == client.getsockname()
            elif operation == "sendall":
                assert drain(theirs) == bytes(filled)
                await loop.sock_sendall(ours, b"next")
                assert drain(theirs) == b"next"
            else:
                send(b"data")
                assert await receive(loop, ours, operation) == b"data"

    run(main())
