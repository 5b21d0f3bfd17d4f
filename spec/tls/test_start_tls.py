"""start_tls(): a plain connection goes on as TLS, with its protocol, whatever was said before."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside
from ..tcp.makers import shrink
from ..tcp.serving import LOCALHOST
from . import certificates, peer
from .helpers import connect, dial, to_the_end

SIDES = pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
KINDS = pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
SHORT = 0.1
"""Seconds."""


@contextlib.asynccontextmanager
async def plain(loop, talk, *, make=peers.pair, protocol=None, small=False):
    """A plain connection whose peer runs `talk(sock)`: its transport and protocol, and the task of the peer.

    The socket of the peer is closed when that returns.
    """
    ours, theirs = make()
    if small:
        shrink(ours, theirs)
    protocol = protocol or Recorder(loop)
    method = loop.create_connection if make is peers.pair else loop.create_unix_connection
    transport, _ = await method(lambda: protocol, sock=ours)

    def run():
        with theirs:
            return talk(theirs)

    talking = loop.create_task(aside(run))
    try:
        yield transport, protocol, talking
    except BaseException as error:
        if talking.done() and (reason := talking.exception()):
            error.add_note(f"peer: {reason!r}")
        talking.cancel()  # it may wait for what the loop does not do
        transport.abort()
        raise
    if not transport.is_closing():
        transport.abort()
    await talking


async def upgrade(loop, transport, protocol, *, server_side=False, **options):
    """start_tls() with a context for that side."""
    if server_side:
        return await loop.start_tls(transport, protocol, certificates.server(), server_side=True, **options)
    options.setdefault("server_hostname", certificates.NAME)
    return await loop.start_tls(transport, protocol, certificates.client(), **options)


def wrap(sock, *, server_side, **options):
    """Shake hands with a loop whose side is `server_side`."""
    context = certificates.client() if server_side else certificates.server()
    return peer.wrap(sock, context, server_side=not server_side, **options)


@clause("tls.start-tls.upgrades", "tls.start-tls.same-protocol", "tls.start-tls.transports")
@KINDS
@SIDES
def test_start_tls_returns_a_new_transport_with_which_the_protocol_goes_on(loop, run, make, server_side):
    def talk(sock):
        with wrap(sock, server_side=server_side) as tls:
            tls.sendall(b"ping")
            got = peers.recv_exactly(tls, 4)
            peer.part(tls)
            return got

    async def main():
        async with plain(loop, talk, make=make) as (transport, protocol, talking):
            tls = await upgrade(loop, transport, protocol, server_side=server_side)
            facts = (
                isinstance(tls, type(transport)) and tls is transport,
                tls.get_protocol() is protocol,
                tls.get_extra_info("sslcontext") is not None,
                tls.get_extra_info("ssl_object").server_side == server_side,
                tls.is_closing() or transport.is_closing(),
            )
            await protocol.received(4)
            tls.write(b"pong")
            got = await talking
            reason = await protocol.lost
            return facts, got, reason, protocol.calls, tls.is_closing() and transport.is_closing()

    facts, got, reason, calls, closing = run(main())
    assert facts == (False, True, True, True, False)
    assert got == b"pong"
    assert reason is None
    assert closing
    assert calls.count("connection_made") == calls.count("connection_lost") == 1


@clause("tls.start-tls.given-protocol")
def test_the_given_protocol_takes_the_place_of_the_one_before(loop, run):
    def talk(sock):
        sock.sendall(b"plain")
        assert peers.recv_exactly(sock, 2) == b"go"
        with wrap(sock, server_side=True) as tls:
            tls.sendall(b"ping")
            peer.part(tls)

    async def main():
        after = Recorder(loop)
        async with plain(loop, talk) as (transport, before, _):
            await before.received(5)
            transport.write(b"go")
            tls = await upgrade(loop, transport, after, server_side=True)
            assert tls.get_protocol() is after
            await after.lost
        return before, after

    before, after = run(main())
    assert before.calls == ["connection_made", "data_received"]
    assert bytes(before.data) == b"plain"
    assert "connection_made" not in after.calls
    assert after.calls[-1] == "connection_lost"
    assert bytes(after.data) == b"ping"


@clause("tls.start-tls.plain-before")
@SIDES
def test_what_was_said_before_stays_plain_and_what_follows_is_not(loop, run, server_side):
    """As in SMTP: greetings, a command, an answer, and only then the handshake."""

    def talk(sock):
        sock.sendall(b"220 ready\r\n")
        for _ in range(3):
            assert peers.recv_exactly(sock, 6) == b"NOOP\r\n"
            sock.sendall(b"250 ok\r\n")
        assert peers.recv_exactly(sock, 10) == b"STARTTLS\r\n"
        if not server_side:
            sock.sendall(b"220 go\r\n")
        with wrap(sock, server_side=server_side) as tls:
            tls.sendall(b"secret")
            peer.part(tls)

    async def main():
        async with plain(loop, talk) as (transport, protocol, _):
            await protocol.received(11)
            for number in range(1, 4):
                transport.write(b"NOOP\r\n")
                await protocol.received(11 + number * 8)
            transport.write(b"STARTTLS\r\n")
            if not server_side:
                await protocol.received(11 + 3 * 8 + 8)
            before = bytes(protocol.data)
            await upgrade(loop, transport, protocol, server_side=server_side)
            await protocol.lost
            return before, bytes(protocol.data)

    before, everything = run(main())
    assert before == b"220 ready\r\n" + b"250 ok\r\n" * 3 + b"220 go\r\n" * (not server_side)
    assert everything == before + b"secret"


async def upgrade_behind(loop, size, *, server_side, high):
    """Write `size` plain bytes, more than the kernel takes, and upgrade; what the peer got plain, and the protocol."""
    started = asyncio.Event()

    def talk(sock):
        asyncio.run_coroutine_threadsafe(started.wait(), loop).result(peers.TIMEOUT)
        got = peers.recv_exactly(sock, size)
        with wrap(sock, server_side=server_side) as tls:
            tls.sendall(b"ping")
            peer.part(tls)
        return got

    async with plain(loop, talk, small=True) as (transport, protocol, talking):
        transport.set_write_buffer_limits(high=high)
        transport.write(pattern(size))
        assert transport.get_write_buffer_size() > 0
        loop.call_soon(started.set)
        await upgrade(loop, transport, protocol, server_side=server_side)
        await protocol.lost
        return await talking, protocol


@clause("tls.start-tls.unsent")
@SIDES
def test_plain_data_that_was_not_sent_yet_goes_out_before_the_handshake(loop, run, server_side):
    size = 2_000_000
    got, protocol = run(upgrade_behind(loop, size, server_side=server_side, high=2 * size))
    assert got == pattern(size)
    assert bytes(protocol.data) == b"ping"
    assert "pause_writing" not in protocol.calls


@clause("tls.start-tls.unsent-paused")
@SIDES
def test_a_protocol_that_was_paused_for_plain_data_is_resumed(loop, run, server_side):
    size = 2_000_000
    got, protocol = run(upgrade_behind(loop, size, server_side=server_side, high=1000))
    assert got == pattern(size)
    assert bytes(protocol.data) == b"ping"
    assert protocol.calls[:2] == ["connection_made", "pause_writing"]
    assert protocol.calls.count("resume_writing") == 1


@clause("tls.start-tls.paused", "tls.start-tls.hello-waits")
def test_start_tls_reads_on_where_reading_was_paused_and_the_handshake_had_begun(loop, run):
    """Whoever sends its hello at once is met by a program that paused reading before it."""
    sent = loop.create_future()

    def talk(sock):
        sock.sendall(b"STARTTLS\r\n")
        assert peers.recv_exactly(sock, 2) == b"go"
        wire = peer.Wire(sock, certificates.client())
        sock.sendall(wire.hello())
        loop.call_soon_threadsafe(sent.set_result, None)
        wire.handshake(hold=True)
        wire.tls.write(b"early")
        wire.flush()
        return wire.recv()

    async def main():
        async with plain(loop, talk) as (transport, protocol, talking):
            await protocol.received(10)
            transport.pause_reading()
            transport.write(b"go")
            await sent
            tls = await upgrade(loop, transport, protocol, server_side=True)
            await protocol.received(15)
            tls.write(b"answer")
            return bytes(protocol.data), await talking

    assert run(main()) == (b"STARTTLS\r\nearly", b"answer")


@clause("tls.start-tls.context-type")
@pytest.mark.parametrize("context", [None, True, False, "context", object()], ids=repr)
def test_what_is_no_ssl_context_raises_type_error_and_harms_nothing(loop, run, context):
    async def main():
        async with plain(loop, lambda sock: sock.sendall(b"unharmed")) as (transport, protocol, _):
            with pytest.raises(TypeError):
                await loop.start_tls(transport, protocol, context, server_hostname=certificates.NAME)
            await protocol.received(8)
            return bytes(protocol.data)

    assert run(main()) == b"unharmed"


@clause("tls.start-tls.transport-type")
def test_a_transport_that_cannot_be_upgraded_raises_type_error(loop, run):
    context = certificates.client()

    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            pipe, _ = await loop.connect_write_pipe(asyncio.Protocol, ours)
            udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(LOCALHOST, 0))
            for transport in (pipe, udp, asyncio.Transport(), object(), None):
                with pytest.raises(TypeError):
                    await loop.start_tls(transport, asyncio.Protocol(), context, server_hostname=certificates.NAME)
            assert not pipe.is_closing()
            assert not udp.is_closing()
            pipe.close()
            udp.close()

    run(main())


def silent(sock):
    """Take what comes and say nothing."""
    to_the_end(sock)


def says_garbage(sock):
    sock.recv(65536)
    sock.sendall(b"garbage, and no record of TLS" * 20)
    to_the_end(sock)


def ends(sock):
    sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)
    to_the_end(sock)


def resets(sock):
    sock.recv(65536)
    peers.reset(sock)


def has_the_wrong_certificate(sock):
    peer.refusal(sock, certificates.server("stranger"), server_side=True)


FAILURES = pytest.mark.parametrize(
    ("talk", "expected"),
    [
        (has_the_wrong_certificate, ssl.SSLCertVerificationError),
        (says_garbage, ssl.SSLError),
        (ends, ConnectionResetError),
    ],
)
INTERRUPTIONS = pytest.mark.parametrize(
    ("talk", "expected"), [(resets, ConnectionResetError), (silent, ConnectionAbortedError)]
)


async def fail(loop, talk, expected):
    """A start_tls() that fails: its error, its protocol, and the transport that it was to upgrade."""
    async with plain(loop, talk) as (transport, protocol, talking):
        with pytest.raises(expected) as caught:
            await upgrade(loop, transport, protocol, ssl_handshake_timeout=SHORT if talk is silent else None)
        await talking
        return caught.value, protocol, transport


@clause("tls.start-tls.failure-raises", "tls.failure.no-report")
@FAILURES
def test_a_failure_is_raised_to_the_caller_and_closes_the_connection(loop, run, talk, expected):
    error, protocol, transport = run(fail(loop, talk, expected))
    assert isinstance(error, expected)
    assert transport.is_closing()
    assert protocol.calls.count("connection_made") == 1
    assert "data_received" not in protocol.calls


@clause("tls.start-tls.failure-lost")
@FAILURES
def test_the_protocol_loses_its_connection_to_the_failure(loop, run, talk, expected):
    async def main():
        error, protocol, _ = await fail(loop, talk, expected)
        return error, await protocol.lost, protocol.calls

    error, reason, calls = run(main())
    assert reason is error
    assert calls == ["connection_made", "connection_lost"]


@clause("tls.start-tls.interruption-raises", "tls.failure.no-report")
@INTERRUPTIONS
def test_a_reset_and_a_time_out_are_raised_to_the_caller_and_close_the_connection(loop, run, talk, expected):
    start = loop.time()
    error, protocol, transport = run(fail(loop, talk, expected))
    assert isinstance(error, expected)
    assert transport.is_closing()
    assert "data_received" not in protocol.calls
    if talk is silent:
        assert loop.time() - start >= SHORT


@clause("tls.start-tls.interruption-lost")
@INTERRUPTIONS
def test_the_protocol_loses_its_connection_to_a_reset_and_to_a_time_out(loop, run, talk, expected):
    async def main():
        error, protocol, _ = await fail(loop, talk, expected)
        async with asyncio.timeout(1):
            return error, await protocol.lost

    error, reason = run(main())
    assert reason is error


@clause("tls.start-tls.verifies-name")
def test_server_hostname_is_what_the_certificate_is_matched_against(loop, run):
    def talk(sock):
        peer.refusal(sock, certificates.server("other name"), server_side=True)

    async def main():
        async with plain(loop, talk) as (transport, protocol, _):
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                await upgrade(loop, transport, protocol)

    run(main())


@clause("tls.start-tls.in-tls")
@SIDES
def test_tls_runs_inside_tls(loop, run, server_side):
    """As to a server behind a proxy that is itself reached by TLS."""
    size = 300_000

    def talk(outer):
        context = certificates.client() if server_side else certificates.server()
        wire = peer.Wire(outer, context, server_side=not server_side)
        wire.handshake()
        got = bytearray()
        while len(got) < size:
            got += wire.recv()
        wire.send(bytes(got[::-1]))
        with contextlib.suppress(OSError):
            wire.run(wire.tls.unwrap)
        return bytes(got)

    async def main(addr):
        protocol = Recorder(loop)
        outer = await connect(loop, addr, protocol)
        inner = await upgrade(loop, outer, protocol, server_side=server_side)
        facts = (
            inner is not outer,
            inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object"),
            inner.get_extra_info("ssl_object").server_side == server_side,
            inner.get_extra_info("peername") == addr,
        )
        inner.write(pattern(size))
        await protocol.received(size)
        await protocol.lost
        return facts, bytes(protocol.data), protocol.calls

    with peer.serve(certificates.server(), talk) as addr:
        facts, got, calls = run(main(addr))
    assert all(facts), facts
    assert got == pattern(size)[::-1]
    assert calls.count("connection_made") == calls.count("connection_lost") == 1


@clause("tls.start-tls.in-tls-failure")
def test_a_handshake_inside_tls_that_fails_closes_both(loop, run):
    def talk(outer):
        with pytest.raises(OSError):
            wire = peer.Wire(outer, certificates.server("stranger"), server_side=True)
            wire.handshake()
            wire.recv()

    async def main(addr):
        protocol = Recorder(loop)
        outer = await connect(loop, addr, protocol)
        with pytest.raises(ssl.SSLCertVerificationError):
            await upgrade(loop, outer, protocol)
        await protocol.lost
        return outer.is_closing()

    with peer.serve(certificates.server(), talk) as addr:
        assert run(main(addr))


@clause("tls.start-tls.stream-writer")
def test_a_stream_writer_upgrades_its_connection_on_either_side(loop, run):
    """The reader goes on, and the writer knows which side it is."""
    handled = loop.create_future()

    async def handle(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        before = writer.transport
        await writer.start_tls(certificates.server())
        facts = (writer.transport is before, writer.get_extra_info("ssl_object").server_side)
        writer.write(b"%r %r\n" % facts)
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        handled.set_result(None)

    def talk(addr):
        with dial(addr) as sock:
            sock.sendall(b"STARTTLS\n")
            assert peers.recv_exactly(sock, 3) == b"go\n"
            with peer.wrap(sock, certificates.client()) as tls:
                tls.sendall(b"ping\n")
                got = peers.recv_exactly(tls, 16)
                peer.part(tls)
                return got

    async def main():
        server = await asyncio.start_server(handle, LOCALHOST, 0)
        got = await aside(talk, server.sockets[0].getsockname())
        await handled
        server.close()
        await server.wait_closed()
        return got

    assert run(main()) == b"False True\nping\n"


@clause("tls.start-tls.stream-writer")
def test_a_stream_writer_upgrades_the_connection_of_a_client(loop, run):
    def talk(conn):
        assert peers.recv_exactly(conn, 9) == b"STARTTLS\n"
        conn.sendall(b"go\n")
        with peer.wrap(conn, certificates.server(), server_side=True) as tls:
            peer.echo(tls)

    async def main(addr):
        reader, writer = await asyncio.open_connection(*addr)
        writer.write(b"STARTTLS\n")
        lines = [await reader.readline()]
        await writer.start_tls(certificates.client(), server_hostname=certificates.NAME)
        side = writer.get_extra_info("ssl_object").server_side
        writer.write(b"ping\n")
        lines.append(await reader.readline())
        writer.close()
        await writer.wait_closed()
        return lines, side

    with peers.serve(talk) as addr:
        assert run(main(addr)) == ([b"go\n", b"ping\n"], False)


@clause("tls.start-tls.read-ahead")
def test_a_hello_that_came_with_the_last_plain_line_is_part_of_the_handshake(loop, run):
    """As behind a proxy that says first for whom it speaks."""

    async def handle(reader, writer):
        line = await reader.readline()
        await writer.start_tls(certificates.server())
        writer.write(line + await reader.readline())
        writer.close()

    def talk(addr):
        with dial(addr) as sock:
            wire = peer.Wire(sock, certificates.client())
            sock.sendall(b"PROXY\n" + wire.hello())
            wire.handshake()
            wire.send(b"ping\n")
            return wire.recv()

    async def main():
        async with await asyncio.start_server(handle, LOCALHOST, 0) as server:
            return await aside(talk, server.sockets[0].getsockname())

    assert run(main()) == b"PROXY\nping\n"
