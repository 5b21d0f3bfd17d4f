"""A socket that operations used is closed, and its fd number comes back as another socket."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack, suppress

import pytest

from .._kit import clause, peers
from ..readers_writers.helpers import SETTLE, drain, fill, pair, pair_at
from .helpers import Late, cancelled, pattern, turns


async def leave(loop, ours, theirs, state):
    """Bring a socket that operations have used into `state`."""
    theirs.send(b"used")
    await loop.sock_recv(ours, 100)
    await loop.sock_sendall(ours, b"used")
    if state == "drained":
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):  # clause-delay
                await loop.sock_recv(ours, 100)
    elif state == "unread-data":
        theirs.send(b"stale")
        await turns()
    elif state == "full":
        fill(ours)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):  # clause-delay
                await loop.sock_sendall(ours, b"x")
    elif state == "end-of-stream":
        theirs.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(ours, 100) == b""
    elif state == "hung-up":
        theirs.close()
        await turns()


async def check(loop, ours, theirs):
    """A fresh, idle socket behaves as one."""
    waiting = asyncio.create_task(loop.sock_recv(ours, 100))
    await turns()
    assert not waiting.done()
    await loop.sock_sendall(ours, b"to them")
    assert drain(theirs) == b"to them"
    with peers.thread(Late(), theirs.send, b"to us"):
        assert await waiting == b"to us"
    theirs.send(b"there")
    assert await loop.sock_recv(ours, 100) == b"there"
    data = pattern(1_000_000)
    theirs.setblocking(True)
    theirs.settimeout(15)
    with peers.thread(peers.recv_exactly, theirs, len(data)) as reader:
        await loop.sock_sendall(ours, data)
        await loop.run_in_executor(None, reader.result)
    assert reader.result() == data
    theirs.close()
    assert await loop.sock_recv(ours, 100) == b""


STATES = ["drained", "unread-data", "full", "end-of-stream", "hung-up"]


@clause("sockets.reuse.after-an-operation")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["closed", "closed-with-a-duplicate-alive"])
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-some-iterations"])
def test_a_new_socket_with_the_number_of_a_closed_one_works(loop, run, state, how, ran):
    async def main():
        with ExitStack() as stack:
            ours, theirs = stack.enter_context(pair())
            await leave(loop, ours, theirs, state)
            fd = ours.fileno()
            if how == "closed-with-a-duplicate-alive":
                stack.enter_context(ours.dup())
            ours.close()
            if ran:
                await turns(SETTLE)
            new, new_theirs = pair_at(fd)
            with new, new_theirs:
                await check(loop, new, new_theirs)

    run(main())


@clause("sockets.reuse.replaced-by-dup2")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-some-iterations"])
def test_a_socket_object_works_on_the_socket_that_dup2_put_under_its_number(loop, run, state, ran):
    async def main():
        with pair() as (ours, theirs), pair() as (another, new_theirs):
            await leave(loop, ours, theirs, state)
            os.dup2(another.fileno(), ours.fileno(), inheritable=False)
            another.close()
            if ran:
                await turns(SETTLE)
            await check(loop, ours, new_theirs)

    run(main())


@clause("sockets.reuse.after-an-operation")
def test_a_new_socket_that_has_data_at_once_is_read_though_the_old_one_was_drained(loop, run):
    async def main():
        with pair() as (ours, theirs):
            await leave(loop, ours, theirs, "drained")
            fd = ours.fileno()
            ours.close()
            new, new_theirs = pair_at(fd)
            with new, new_theirs:
                new_theirs.send(b"new")
                assert await loop.sock_recv(new, 100) == b"new"

    run(main())


@clause("sockets.reuse.after-an-operation")
def test_a_number_that_is_reused_again_and_again_always_works(loop, run):
    async def main():
        with pair() as (ours, _):
            fd = ours.fileno()
        for day in range(60):
            ours, theirs = pair_at(fd)
            with ours, theirs:
                if day % 3:
                    waiting = asyncio.create_task(loop.sock_recv(ours, 100))
                    await turns(day % 4)
                    theirs.send(b"%d" % day)
                    assert await waiting == b"%d" % day
                else:
                    theirs.send(b"%d" % day)
                    assert await loop.sock_recv(ours, 100) == b"%d" % day
                await loop.sock_sendall(ours, b"back")
                assert drain(theirs) == b"back"

    run(main())


@clause("sockets.reuse.after-an-operation")
def test_a_listener_with_the_number_of_a_closed_one_accepts(loop, run):
    async def main():
        with peers.listener() as first:
            with socket.create_connection(first.getsockname(), 15):
                (await loop.sock_accept(first))[0].close()
            waiting = asyncio.ensure_future(loop.sock_accept(first))
            await turns()
            await cancelled(waiting)
            fd = first.fileno()
        with peers.listener() as another:
            if another.fileno() == fd:
                second = another.dup()
                os.close(second.detach())
                listener = another
            else:
                os.dup2(another.fileno(), fd, inheritable=False)
                listener = socket.socket(fileno=fd)
                listener.setblocking(False)
            with listener, peers.thread(Late(), dial, listener.getsockname()) as client:
                conn, address = await loop.sock_accept(listener)
                conn.close()
                assert address == client.result()

    def dial(addr):
        with socket.create_connection(addr, 15) as sock:
            return sock.getsockname()

    run(main())


@clause("sockets.reuse.after-cancel")
@pytest.mark.parametrize("direction", ["receiving", "sending"])
@pytest.mark.parametrize("settled", [False, True], ids=["at-once", "after-the-task-ended"])
def test_a_new_socket_works_after_a_cancelled_operation_on_the_old_one(loop, run, direction, settled):
    async def main():
        with pair() as (ours, _):
            fill(ours)
            call = loop.sock_recv(ours, 100) if direction == "receiving" else loop.sock_sendall(ours, b"x")
            waiting = asyncio.create_task(call)
            await turns()
            fd = ours.fileno()
            if settled:
                await cancelled(waiting)
                await turns()
                ours.close()
            else:
                waiting.cancel()
                ours.close()
            new, new_theirs = pair_at(fd)
            with new, new_theirs:
                if not settled:
                    await turns()
                await check(loop, new, new_theirs)
            assert waiting.cancelled()

    run(main())


@clause("sockets.reuse.while-waited")
@pytest.mark.parametrize("direction", ["receiving", "sending"])
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-some-iterations"])
@pytest.mark.parametrize("cancel", [False, True], ids=["left", "cancelled-meanwhile"])
def test_a_new_socket_works_while_an_operation_on_the_old_one_was_never_ended(loop, run, direction, ran, cancel):
    async def main():
        with pair() as (ours, _):
            fill(ours)
            call = loop.sock_recv(ours, 100) if direction == "receiving" else loop.sock_sendall(ours, b"x")
            old = asyncio.create_task(call)
            await turns()
            fd = ours.fileno()
            ours.close()
            if ran:
                await turns()
            new, new_theirs = pair_at(fd)
            with new, new_theirs:
                async with asyncio.timeout(2):
                    if cancel:
                        waiting = asyncio.create_task(loop.sock_recv(new, 100))
                        await turns()
                        old.cancel()
                        await turns()
                        new_theirs.send(b"new")
                        assert await waiting == b"new"
                    await check(loop, new, new_theirs)
            old.cancel()
            # It may have failed meanwhile, or wait for ever; it has not got what is the new socket's.
            with suppress(asyncio.CancelledError, OSError):
                assert await old is None
                raise AssertionError("the operation on the closed socket succeeded")

    run(main())


@clause("sockets.reuse.next-loop")
@pytest.mark.parametrize("state", ["drained", "unread-data", "waiting"])
def test_a_socket_can_be_used_by_one_loop_after_another(new_loop, state):
    async def use(loop, ours, theirs, number):
        if state == "drained":
            theirs.send(b"%d" % number)
            assert await loop.sock_recv(ours, 100) == b"%d" % number
        waiting = asyncio.create_task(loop.sock_recv(ours, 100))
        await turns()
        assert not waiting.done()
        if state == "waiting":
            await cancelled(waiting)
        else:
            theirs.send(b"late")
            assert await waiting == b"late"
        await loop.sock_sendall(ours, b"x")
        if state == "unread-data":
            theirs.send(b"for the next")
            await turns()

    with pair() as (ours, theirs):
        for number in range(3):
            loop = new_loop()
            if state == "unread-data" and number:
                assert loop.run_until_complete(loop.sock_recv(ours, 100)) == b"for the next"
            loop.run_until_complete(asyncio.wait_for(use(loop, ours, theirs, number), 10))
            loop.close()
        assert drain(theirs) == b"xxx"


def tcp_pair_at(fd):
    """As `peers.pair()`, its first end with the number `fd`, which must be free."""
    ours, theirs = peers.pair()
    if ours.fileno() == fd:
        return ours, theirs
    with ours:
        os.dup2(ours.fileno(), fd, inheritable=False)
    new = socket.socket(fileno=fd)
    new.setblocking(False)
    return new, theirs


@clause("sockets.reuse.by-a-transport")
@pytest.mark.parametrize("operation", ["sock_recv", "sock_connect"])
def test_the_number_of_a_cancelled_operation_can_be_that_of_a_transport(loop, run, operation):
    async def main():
        with ExitStack() as stack:
            if operation == "sock_recv":
                ours, theirs = stack.enter_context(pair())
                call = loop.sock_recv(ours, 10)
            else:
                listening = stack.enter_context(peers.listener(backlog=0))
                for _ in range(16):  # its queue is full: nobody answers
                    filler = stack.enter_context(socket.socket())
                    filler.setblocking(False)
                    filler.connect_ex(listening.getsockname())
                ours = stack.enter_context(socket.socket())
                ours.setblocking(False)
                call = loop.sock_connect(ours, listening.getsockname())
            waiting = asyncio.create_task(call)
            await turns()
            await cancelled(waiting)
            fd = ours.fileno()
            ours.close()
            new, theirs = tcp_pair_at(fd)
            with theirs:
                reader, writer = await asyncio.open_connection(sock=new)
                theirs.sendall(b"to us")
                assert await reader.readexactly(5) == b"to us"
                writer.write(b"to them")
                await writer.drain()
                assert peers.recv_exactly(theirs, 7) == b"to them"
                writer.close()
                await writer.wait_closed()

    run(main())


@clause("sockets.reuse.by-a-transport")
@pytest.mark.parametrize("end", ["close", "abort", "peer"])
def test_the_number_of_an_ended_transport_can_be_that_of_an_operation(loop, run, end):
    async def main():
        first, peer = peers.pair()
        fd = first.fileno()
        _, writer = await asyncio.open_connection(sock=first)
        if end == "peer":
            peer.close()
            await turns()
            writer.close()
        else:
            getattr(writer.transport, end)()
        await writer.wait_closed()
        await turns()
        peer.close()
        new, theirs = tcp_pair_at(fd)
        with new, theirs:
            theirs.setblocking(False)
            await check(loop, new, theirs)

    run(main())
