"""The time-out of the handshake, on both sides, and the arguments that set it and that of the shutdown."""

from __future__ import annotations

import asyncio
import time

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside
from ..tcp.serving import LOCALHOST
from . import certificates, peer
from .helpers import ask, connect, dial, serving, to_the_end

SHORT = 0.1
"""Seconds."""
OPTIONS = pytest.mark.parametrize("option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])


@clause("tls.timeout.client", "tls.failure.no-callback", "tls.failure.no-report")
@pytest.mark.parametrize("answer", [b"", b"\x16\x03\x03\x00\x7a\x02"], ids=["silent", "began"])
def test_a_server_that_does_not_finish_the_handshake_in_time_makes_create_connection_raise(loop, run, answer):
    protocol = Recorder(loop)

    def talk(conn):
        conn.sendall(answer)
        to_the_end(conn)

    async def main(addr):
        start = loop.time()
        with pytest.raises(ConnectionAbortedError):
            await connect(loop, addr, protocol, ssl_handshake_timeout=SHORT)
        return loop.time() - start

    with peers.serve(talk) as addr:
        assert run(main(addr)) >= SHORT
    assert protocol.calls == []


@clause("tls.timeout.server", "tls.failure.no-callback", "tls.failure.no-report", "tls.failure.detached")
@pytest.mark.parametrize("size", [0, 50], ids=["silent", "began"])
def test_a_server_closes_a_connection_that_does_not_finish_the_handshake_in_time(loop, run, size):
    protocols = []

    def factory():
        protocols.append(Recorder(loop))
        return protocols[-1]

    def wait(addr):
        start = time.monotonic()
        with dial(addr) as sock:
            sock.sendall(peer.Wire(sock, certificates.client()).hello()[:size])
            to_the_end(sock)
        elapsed = time.monotonic() - start
        with peer.wrap(dial(addr), certificates.client()) as tls:
            tls.sendall(b"ping")
            peer.part(tls)
        return elapsed

    async def main():
        async with serving(loop, factory, ssl_handshake_timeout=SHORT) as addr:
            return await aside(wait, addr)

    assert run(main()) >= SHORT
    assert [bytes(protocol.data) for protocol in protocols] == [b"", b"ping"]
    assert protocols[0].calls == []


@clause("tls.timeout.accepted-socket")
def test_connect_accepted_socket_raises_when_its_client_takes_too_long(loop, run):
    protocol = Recorder(loop)

    async def main():
        ours, theirs = peers.pair()
        waiting = loop.create_task(aside(to_the_end, theirs))
        start = loop.time()
        with pytest.raises(ConnectionAbortedError):
            await loop.connect_accepted_socket(
                lambda: protocol, ours, ssl=certificates.server(), ssl_handshake_timeout=SHORT
            )
        elapsed = loop.time() - start
        await waiting
        theirs.close()
        return elapsed

    assert run(main()) >= SHORT
    assert protocol.calls == []


@clause("tls.timeout.of-the-whole")
def test_the_time_is_that_of_the_whole_handshake_not_of_each_of_its_bytes(loop, run):
    """A peer that sends a byte now and then is no better than one that sends none."""

    def drip(sock):
        with sock:
            hello = peer.Wire(sock, certificates.client()).hello()
            start = time.monotonic()
            try:
                for byte in hello:
                    sock.sendall(bytes((byte,)))
                    time.sleep(SHORT / 4)  # clause-delay
            except OSError:
                return time.monotonic() - start
        raise AssertionError("nobody minded")

    async def main():
        ours, theirs = peers.pair()
        dripping = loop.create_task(aside(drip, theirs))
        with pytest.raises(ConnectionAbortedError):
            await loop.connect_accepted_socket(
                lambda: Recorder(loop), ours, ssl=certificates.server(), ssl_handshake_timeout=SHORT
            )
        return await dripping

    assert run(main()) >= SHORT


@clause("tls.timeout.not-after")
def test_a_connection_outlives_the_time_that_its_handshake_had(loop, run):
    async def main(addr):
        protocol = Recorder(loop)
        transport = await connect(loop, addr, protocol, ssl_handshake_timeout=SHORT * 3)
        await asyncio.sleep(SHORT * 4)  # clause-delay
        return await ask(transport, protocol)

    with peer.serve(certificates.server(), peer.echo) as addr:
        assert run(main(addr)) == (b"ping", None)


@clause("tls.timeout.needs-ssl")
@OPTIONS
def test_a_time_out_without_ssl_raises_value_error(loop, run, tmp_path, option):
    options = {option: 1.0}
    path = str(tmp_path / "s")

    async def main():
        ours, theirs = peers.pair()
        with ours, theirs:
            for made in (
                loop.create_connection(asyncio.Protocol, LOCALHOST, 1, **options),
                loop.create_connection(asyncio.Protocol, sock=ours, **options),
                loop.connect_accepted_socket(asyncio.Protocol, ours, **options),
                loop.create_server(asyncio.Protocol, LOCALHOST, 0, **options),
                loop.create_unix_connection(asyncio.Protocol, path, **options),
                loop.create_unix_server(asyncio.Protocol, path, **options),
            ):
                with pytest.raises(ValueError, match=f"{option} is only meaningful with ssl"):
                    await made

    run(main())


@clause("tls.timeout.positive")
@OPTIONS
@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_a_time_out_that_is_not_positive_raises_value_error(loop, run, option, value):
    """The connection that start_tls() was to upgrade is as it was."""
    options = {option: value}
    client = {"ssl": certificates.client(), "server_hostname": certificates.NAME}

    async def main():
        ours, theirs = peers.pair()
        with ours, theirs, pytest.raises(ValueError, match=f"{option} should be a positive number"):
            await loop.create_connection(asyncio.Protocol, sock=ours, **client, **options)
        ours, theirs = peers.pair()
        with ours, theirs, pytest.raises(ValueError, match=option):
            await loop.connect_accepted_socket(asyncio.Protocol, ours, ssl=certificates.server(), **options)
        ours, theirs = peers.pair()
        with theirs:
            transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=ours)
            with pytest.raises(ValueError, match=option):
                await loop.start_tls(transport, protocol, certificates.server(), server_side=True, **options)
            theirs.sendall(b"unharmed")
            await protocol.received(8)
            transport.close()
            await protocol.lost

    run(main())
