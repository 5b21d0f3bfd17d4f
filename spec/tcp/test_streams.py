"""asyncio's streams over the loop's TCP: what most programs use. The streams themselves are CPython's."""

from __future__ import annotations

import asyncio
import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import pattern
from .._kit.contracts.stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, turns
from .makers import shrink

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@clause("tcp.streams.server")
def test_start_server_serves_lines(loop, run):
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    def talk(addr):
        with socket.create_connection(addr, timeout=peers.TIMEOUT) as sock:
            sock.sendall(b"one\ntwo\nthr")
            first = peers.recv_exactly(sock, 8)
            sock.sendall(b"ee\n")
            sock.shutdown(socket.SHUT_WR)
            return first + drain(sock)

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        got = await aside(talk, server.sockets[0].getsockname())
        server.close()
        await server.wait_closed()
        return got

    assert run(main()) == b"ONE\nTWO\nTHREE\n"


@clause("tcp.streams.client")
def test_open_connection_reads_and_writes(loop, run):
    def serve(conn):
        conn.sendall(b"first\nsecond\n" + b"x" * 10 + b"rest")
        assert drain(conn) == b"request"

    async def main(addr):
        reader, writer = await asyncio.open_connection(*addr)
        parts = [await reader.readline(), await reader.readuntil(b"\n"), await reader.readexactly(10)]
        writer.write(b"request")
        writer.write_eof()
        parts.append(await reader.read())
        at_eof = reader.at_eof()
        writer.close()
        await writer.wait_closed()
        return parts, at_eof

    with peers.serve(serve) as addr:
        assert run(main(addr)) == ([b"first\n", b"second\n", b"x" * 10, b"rest"], True)


@clause("tcp.streams.drain-waits")
def test_drain_waits_while_the_peer_does_not_read(loop, run):
    async def main():
        ours, theirs = peers.pair()
        shrink(ours, theirs)
        _, writer = await asyncio.open_connection(sock=ours)
        writer.write(BLOB)
        draining = loop.create_task(writer.drain())
        await turns(50)
        early = draining.done()
        reading = loop.create_task(aside(drain, theirs))
        await draining
        writer.close()
        await writer.wait_closed()
        got = await reading
        theirs.close()
        return early, got

    early, got = run(main())
    assert not early
    assert got == BLOB


@clause("tcp.streams.wait-closed-error")
def test_wait_closed_and_read_raise_the_reset(loop, run):
    async def main():
        ours, theirs = peers.pair()
        reader, writer = await asyncio.open_connection(sock=ours)
        peers.reset(theirs)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(ConnectionResetError):
            await writer.wait_closed()

    run(main())


@clause("tcp.streams.reader-pauses")
def test_a_reader_that_nobody_reads_stops_the_peer(loop, run):
    """StreamReader pauses the transport over twice its limit: the peer's send must come to a halt."""

    async def main():
        ours, theirs = peers.pair()
        shrink(ours, theirs)
        reader, writer = await asyncio.open_connection(sock=ours, limit=1024)
        sending = loop.create_task(aside(theirs.sendall, BLOB))
        await turns(200)
        stalled = not sending.done()
        got = bytearray()
        while len(got) < len(BLOB):
            got += await reader.read(1 << 20)
        await sending
        writer.close()
        await writer.wait_closed()
        theirs.close()
        return stalled, bytes(got)

    stalled, got = run(main())
    assert stalled
    assert got == BLOB
