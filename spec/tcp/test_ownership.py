"""Who owns what: servers without a reference, sockets that were given, the socket that a transport tells."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from .serving import LOCALHOST, Echo, exchange


class Refused(Exception):
    pass


def refuse():
    raise Refused


@clause("tcp.server.needs-no-reference")
@pytest.mark.parametrize("how", ["create_server", "start_serving", "start_server"])
def test_a_server_that_nothing_refers_to_serves_on(loop, run, how):
    async def serve():
        if how == "start_server":
            server = await asyncio.start_server(echo, LOCALHOST, 0)
        else:
            server = await loop.create_server(Echo, LOCALHOST, 0, start_serving=how == "create_server")
            await server.start_serving()
        return server.sockets[0].getsockname()

    async def echo(reader, writer):
        writer.write(await reader.readexactly(4))
        writer.close()

    async def main():
        addr = await serve()
        got = []
        for _ in range(3):
            gc.collect()
            await turns()
            got.append(await aside(exchange, addr))
        await turns()
        return got

    assert run(main()) == [b"ping"] * 3


@clause("tcp.server.port-none")
def test_a_server_without_a_port_has_a_free_one(loop, run):
    async def main():
        server = await loop.create_server(Echo, LOCALHOST, None)
        addr = server.sockets[0].getsockname()
        got = await aside(exchange, addr)
        server.close()
        return addr[1] > 0, got

    assert run(main()) == (True, b"ping")


@clause("tcp.connect.sock-agrees-with-descriptor")
@pytest.mark.parametrize("how", ["factory raises", "cancelled at once", "cancelled in the handshake"])
def test_a_socket_whose_connection_was_not_made_is_open_or_closed_as_an_object_as_well(loop, run, saw, how):
    """A number that is closed behind the object's back is another file's by the time the object is closed."""
    ours, theirs = peers.pair()
    fd, inode = ours.fileno(), os.fstat(ours.fileno()).st_ino

    async def main():
        factory = refuse if how == "factory raises" else asyncio.Protocol
        options = {"ssl": True, "server_hostname": "nobody"} if how == "cancelled in the handshake" else {}
        making = loop.create_task(loop.create_connection(factory, sock=ours, **options))
        if how != "factory raises":
            await turns(10 if options else 1)
            making.cancel()
        try:
            transport, _ = await making
        except (Refused, asyncio.CancelledError):
            pass
        else:  # it was made before it could be cancelled
            transport.abort()
        await turns()

    with ours, theirs:
        run(main())
        gc.collect()
        open_as_object = ours.fileno() == fd
        assert open_as_object or ours.fileno() == -1
        try:
            still_there = os.fstat(fd).st_ino == inode
        except OSError:
            still_there = False
        assert open_as_object == still_there
    saw("tcp.connect.sock-agrees-with-descriptor", "the socket is open" if still_there else "the socket is closed")


@clause("tcp.info.socket-shutdown")
def test_a_shutdown_for_reading_of_the_transports_socket_ends_reading(loop, run):
    async def main():
        protocol = Recorder(loop, eof_received=lambda: True)
        ours, theirs = peers.pair()
        with theirs:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            transport.get_extra_info("socket").shutdown(socket.SHUT_RD)
            await protocol.called("eof_received")
            transport.write(b"goes on")
            got = await aside(peers.recv_exactly, theirs, 7)
            transport.close()
            return got, await protocol.lost

    assert run(main()) == (b"goes on", None)


@clause("tcp.info.socket-shutdown")
def test_a_shutdown_both_ways_of_the_transports_socket_ends_the_connection(loop, run):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        with theirs:
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            reason = await protocol.lost
            return reason, await aside(theirs.recv, 1)

    assert run(main()) == (None, b"")


@clause("tcp.write-eof.after-reset")
def test_write_eof_on_a_connection_that_was_reset_leads_to_one_loss(loop, run, saw):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = peers.pair()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        peers.reset(theirs)
        raised = False
        try:
            transport.write_eof()
        except OSError:  # ENOTCONN, by shutdown(2)
            raised = True
        saw("tcp.write-eof.after-reset", "write_eof() raises OSError" if raised else "write_eof() raises nothing")
        reason = await protocol.lost
        await turns()
        return reason, protocol.calls

    reason, calls = run(main())
    assert isinstance(reason, OSError)
    assert calls == ["connection_made", "connection_lost"]


async def attempt(loop, addr, by, turns_before):
    """A create_connection() that is cancelled after so many turns, or once it is done; its protocol."""
    given = None
    if by == "sock":
        given = socket.create_connection(addr)
        given.setblocking(False)
    where = {"sock": given} if given is not None else {"host": addr[0], "port": addr[1]}
    protocol = Recorder(loop)
    making = loop.create_task(loop.create_connection(lambda: protocol, **where))
    for _ in range(turns_before):
        await asyncio.sleep(0)
    making.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await making
    if protocol.transport is not None:
        protocol.transport.abort()
    elif given is not None:
        given.close()
    return protocol


def echo(conn):
    with contextlib.suppress(ConnectionError):
        while data := conn.recv(100):
            conn.sendall(data)


@clause("tcp.connect.cancelled-at-any-turn")
@pytest.mark.parametrize("by", ["host", "sock"])
def test_a_connection_that_is_cancelled_at_any_turn_leaves_others_alone(loop, run, by):
    async def bystander(addr):
        protocol = Recorder(loop)
        await loop.create_connection(lambda: protocol, *addr)
        return protocol

    async def main(addr):
        others = [await bystander(addr)]
        for turns_before in range(12):
            await attempt(loop, addr, by, turns_before)
            others.append(await bystander(addr))  # it has the number that the attempt had
            for n, other in enumerate(others):
                other.transport.write(b"%03d" % n)
            for n, other in enumerate(others):
                await other.received(3)
                assert bytes(other.data) == b"%03d" % n
                other.data.clear()
        for other in others:
            other.transport.close()
            await other.lost

    with peers.serve(echo) as addr:
        run(main(addr))


@clause("tcp.connect.cancelled-told")
@pytest.mark.parametrize("by", ["host", "sock"])
def test_a_protocol_that_was_told_of_a_connection_is_told_of_its_end(loop, run, by):
    async def main(addr):
        told = []
        for turns_before in range(12):
            protocol = await attempt(loop, addr, by, turns_before)
            if protocol.calls:
                await protocol.lost
            told.append(protocol.calls)
        return told

    with peers.serve(echo) as addr:
        told = run(main(addr))
    assert all(calls in ([], ["connection_made", "connection_lost"]) for calls in told), told
    assert told[-1]
