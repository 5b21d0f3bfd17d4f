"""Handshakes that fail: for each reason, on both sides; what the program, the peer and the next connection see."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
import warnings
import weakref

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from . import certificates, peer
from .certificates import V1_2, V1_3
from .helpers import connect, dial, open_files, serving, to_the_end, until

AES, CHACHA = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"
FATAL_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"  # RFC 8446, 6: an alert record: fatal, handshake_failure
GARBAGE = b"\x00garbage, and no record of TLS" * 20

# What a server and a client have that keeps them apart, what the client's error is then, and with what a client gets on
# with that server.
REFUSALS = {
    "untrusted": (
        lambda: certificates.server("stranger"),
        certificates.client,
        ssl.SSLCertVerificationError,
        lambda: certificates.client(verify=False),
    ),
    "other-name": (
        lambda: certificates.server("other name"),
        certificates.client,
        ssl.SSLCertVerificationError,
        lambda: certificates.client(verify=False),
    ),
    "expired": (
        lambda: certificates.server("expired"),
        certificates.client,
        ssl.SSLCertVerificationError,
        lambda: certificates.client(verify=False),
    ),
    "no-version": (
        lambda: certificates.server(version=V1_3),
        lambda: certificates.client(version=V1_2),
        ssl.SSLError,
        lambda: certificates.client(version=V1_3),
    ),
    "no-cipher": (
        lambda: certificates.server(version=V1_2, ciphers=AES),
        lambda: certificates.client(version=V1_2, ciphers=CHACHA),
        ssl.SSLError,
        lambda: certificates.client(version=V1_2, ciphers=AES),
    ),
    "no-client-certificate": (
        lambda: certificates.server(version=V1_2, clients=ssl.CERT_REQUIRED),
        lambda: certificates.client(version=V1_2),
        (ssl.SSLError, ConnectionResetError),  # a server that closes without an alert will do
        lambda: certificates.client("client", version=V1_2),
    ),
    "untrusted-client": (
        lambda: certificates.server(version=V1_2, clients=ssl.CERT_REQUIRED),
        lambda: certificates.client("strange client", version=V1_2),
        (ssl.SSLError, ConnectionResetError),
        lambda: certificates.client("client", version=V1_2),
    ),
}
BOTH_SIDES = pytest.mark.parametrize(
    "reason", [pytest.param(reason, marks=clause(f"tls.refused.{reason}"), id=reason) for reason in REFUSALS]
)
MESSAGES = {
    "http-request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": GARBAGE,
    "alert": FATAL_ALERT,
    "close-notify": b"\x15\x03\x03\x00\x02\x01\x00",
}
SENDS_INSTEAD = pytest.mark.parametrize(
    "message",
    [pytest.param(message, marks=clause(f"tls.broken.{name}"), id=name) for name, message in MESSAGES.items()],
)
ENDS = pytest.mark.parametrize(
    "end", [pytest.param(end, marks=clause(f"tls.broken.{end}"), id=end) for end in ("eof", "reset")]
)
VERSIONS = pytest.mark.parametrize("version", certificates.VERSIONS.values(), ids=certificates.VERSIONS)


class Protocols(list):
    """A factory of recorders that keeps them."""

    def __init__(self, loop):
        self.loop = loop

    def __call__(self):
        self.append(Recorder(self.loop))
        return self[-1]


@clause("tls.refused.raises", "tls.failure.no-callback", "tls.failure.no-report")
@BOTH_SIDES
def test_create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing(loop, run, reason):
    server, client, expected, _ = REFUSALS[reason]
    protocol = Recorder(loop)

    async def main(addr):
        with pytest.raises(expected) as caught:
            await connect(loop, addr, protocol, ssl=client())
        return caught.value

    with peer.serve_refused(server()) as (addr, failures):
        error = run(main(addr))
    assert len(failures) == 1
    assert protocol.calls == []
    words = {"other-name": "Hostname mismatch", "expired": "certificate has expired"}
    assert words.get(reason, "") in str(error)


@clause("tls.failure.server-goes-on", "tls.failure.no-callback", "tls.failure.no-report", "tls.failure.detached")
@BOTH_SIDES
def test_a_server_closes_a_connection_that_comes_to_nothing_and_serves_the_next(loop, run, reason):
    server, client, _, welcome = REFUSALS[reason]
    protocols = Protocols(loop)

    def refused(addr):
        peer.refusal(dial(addr), client())

    def served(addr):
        with peer.wrap(dial(addr), welcome()) as tls:
            tls.sendall(b"ping")
            peer.part(tls)

    async def main():
        async with serving(loop, protocols, ssl=server()) as addr:
            await aside(served, addr)
            await protocols[0].lost
            before = open_files()
            await aside(refused, addr)
            await until(lambda: open_files() == before)
            await aside(served, addr)

    run(main())
    assert [bytes(protocol.data) for protocol in protocols] == [b"ping", b"", b"ping"]
    assert protocols[1].calls == []


@clause("tls.refused.client-certificate-late")
@pytest.mark.parametrize("certificate", [None, "strange client"], ids=["none", "untrusted"])
def test_a_client_of_tls_1_3_learns_late_that_its_certificate_will_not_do(loop, run, certificate, saw):
    """It has done its part by then: create_connection() raises the error, or connection_lost() gets it."""
    protocol = Recorder(loop)

    async def main(addr):
        context = certificates.client(certificate, version=V1_3)
        try:
            await connect(loop, addr, protocol, ssl=context)
        except OSError as error:
            return error
        return await protocol.lost

    with peer.serve_refused(certificates.server(clients=ssl.CERT_REQUIRED)) as (addr, failures):
        error = run(main(addr))
    assert isinstance(error, ssl.SSLError)
    assert len(failures) == 1
    assert protocol.calls in ([], ["connection_made", "connection_lost"])
    late = bool(protocol.calls)
    saw(
        "tls.refused.client-certificate-late",
        "connection_lost() gets the error" if late else "create_connection() raises",
    )


@clause("tls.refused.client-certificate-late")
def test_a_server_of_tls_1_3_makes_no_connection_without_the_certificate_that_it_asks_for(loop, run):
    protocols = Protocols(loop)

    async def main():
        async with serving(loop, protocols, ssl=certificates.server(clients=ssl.CERT_REQUIRED)) as addr:
            await aside(lambda: peer.refusal(dial(addr), certificates.client(version=V1_3)))

    run(main())
    assert [protocol.calls for protocol in protocols] == [[]]


@clause("tls.failure.alert-sent")
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_the_peer_is_sent_the_alert_that_says_why(loop, run, server_side):
    """RFC 8446, 6.2: protocol_version of a server, unknown_ca of a client."""

    async def main():
        async with serving(loop, ssl=certificates.server(version=V1_3)) as addr:
            return await aside(lambda: peer.refusal(dial(addr), certificates.client(version=V1_2)))

    async def refuse(addr):
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, addr, Recorder(loop))

    if server_side:
        error = run(main())
    else:
        with peer.serve_refused(certificates.server("stranger")) as (addr, failures):
            run(refuse(addr))
        (error,) = failures
    assert isinstance(error, ssl.SSLError)
    assert "ALERT" in (error.reason or ""), error


@clause("tls.failure.no-callback", "tls.failure.no-report")
@SENDS_INSTEAD
def test_create_connection_raises_for_whatever_else_a_server_sends(loop, run, message):
    protocol = Recorder(loop)

    def talk(conn):
        conn.sendall(message)
        to_the_end(conn)

    async def main(addr):
        with pytest.raises(ssl.SSLError) as caught:
            await connect(loop, addr, protocol)
        return caught.value

    with peers.serve(talk) as addr:
        error = run(main(addr))
    assert protocol.calls == []
    if message is FATAL_ALERT:
        assert "ALERT" in error.reason


@clause("tls.failure.server-goes-on", "tls.failure.no-callback", "tls.failure.no-report", "tls.failure.detached")
@SENDS_INSTEAD
def test_a_server_closes_the_connection_of_a_client_that_sends_something_else(loop, run, message):
    protocols = Protocols(loop)

    def talk(addr):
        with dial(addr) as sock:
            sock.sendall(message)
            to_the_end(sock)
        with peer.wrap(dial(addr), certificates.client()) as tls:
            tls.sendall(b"ping")
            peer.part(tls)

    async def main():
        async with serving(loop, protocols) as addr:
            await aside(talk, addr)

    run(main())
    assert [bytes(protocol.data) for protocol in protocols] == [b"", b"ping"]
    assert protocols[0].calls == []


def vanish(sock, end):
    """End the connection; what the loop sends until it has closed its socket goes nowhere."""
    with sock:
        if end == "reset":
            peers.reset(sock)
        else:
            sock.shutdown(socket.SHUT_WR)
            to_the_end(sock)


@clause("tls.failure.server-goes-on", "tls.failure.no-callback", "tls.failure.no-report", "tls.failure.no-leak")
@VERSIONS
@ENDS
@pytest.mark.timeout(60)
def test_a_client_that_vanishes_at_any_byte_leaves_a_server_as_it_was(loop, run, version, end):
    """At every byte of its first flight, and at every byte of the second one."""
    context = certificates.client(version=version)
    protocols = Protocols(loop)

    def complete(addr):
        with dial(addr) as sock:
            wire = peer.Wire(sock, context)
            hello = len(wire.hello())
            wire = peer.Wire(sock, context)
            wire.handshake()
            total = len(wire.sent)
            wire.send(b"ping")
            with contextlib.suppress(OSError):
                wire.run(wire.tls.unwrap)
        return hello, total

    def first_flight(addr, size):
        with dial(addr) as sock:
            hello = peer.Wire(sock, context).hello()
            sock.sendall(hello[:size])
            vanish(sock, end)

    def second_flight(addr, size):
        with dial(addr) as sock:
            with pytest.raises(peer.Vanished):
                peer.Wire(sock, context, limit=size).handshake()
            vanish(sock, end)

    def vanish_everywhere(addr, hello, total):
        for size in range(hello):
            first_flight(addr, size)
        for size in range(hello, total, 4 if version == V1_2 else 2):
            second_flight(addr, size)
        complete(addr)

    async def main():
        async with serving(loop, protocols) as addr:
            hello, total = await aside(complete, addr)
            await protocols[0].lost
            before = open_files()
            await aside(vanish_everywhere, addr, hello, total)
            await until(lambda: open_files() == before)
        return hello, total

    hello, total = run(main())
    assert 100 < hello < total
    served = [protocol for protocol in protocols if protocol.calls]
    assert [bytes(protocol.data) for protocol in served] == [b"ping", b"ping"]
    assert served == [protocols[0], protocols[-1]]
    assert len(protocols) > hello


@clause("tls.failure.no-callback", "tls.failure.no-report", "tls.failure.no-leak")
@VERSIONS
@ENDS
@pytest.mark.timeout(60)
def test_a_server_that_vanishes_at_any_byte_makes_create_connection_raise_connection_reset_error(
    loop, run, version, end
):
    server_context = certificates.server()
    client_context = certificates.client(version=version)
    limits: list[int | None] = [None]
    totals, ended = [], []

    def talk(conn):
        limit = limits[-1]
        with conn:
            wire = peer.Wire(conn, server_context, server_side=True, limit=limit)
            if limit is None:
                wire.handshake()
                totals.append(len(wire.sent))
                wire.recv()
            else:
                if limit:
                    with pytest.raises(peer.Vanished):
                        wire.handshake()
                else:
                    conn.recv(65536)
                vanish(conn, end)
        ended.append(limit)

    async def main(addr):
        protocol = Recorder(loop)
        (await connect(loop, addr, protocol, ssl=client_context)).close()
        await protocol.lost
        await until(lambda: ended)
        before = open_files()
        # A signature has some bytes more or less by chance, and behind the handshake of TLS 1.3 there are tickets.
        complete = (totals[0] if version == V1_2 else flight(server_context, client_context)) - 8
        for limit in [*range(40), *range(40, complete, 5)]:
            limits.append(limit)
            protocol = Recorder(loop)
            with pytest.raises(ConnectionResetError):
                await connect(loop, addr, protocol, ssl=client_context)
            assert protocol.calls == [], limit
            await until(lambda: len(ended) == len(limits) and open_files() == before)
        return complete

    with peers.serve(talk) as addr:
        assert run(main(addr)) > 400


def flight(server_context, client_context):
    """How long the first flight of the server is."""
    ours, theirs = peers.unix_pair()
    with ours, theirs:
        hello = peer.Wire(ours, client_context).hello()
        wire = peer.Wire(theirs, server_context, server_side=True)
        wire.incoming.write(hello)
        with pytest.raises(ssl.SSLWantReadError):
            wire.tls.do_handshake()
        return len(wire.outgoing.read())


@clause("tls.broken.half-closed")
def test_a_peer_that_ends_its_side_only_ends_the_handshake(loop, run):
    """What it would still read does not matter: its part of the handshake will never come."""
    protocol = Recorder(loop)

    def talk(sock):
        with sock:
            sock.recv(65536)
            sock.shutdown(socket.SHUT_WR)
            return to_the_end(sock)

    async def main():
        ours, theirs = peers.pair()
        talking = loop.create_task(aside(talk, theirs))
        with pytest.raises(ConnectionResetError):
            await loop.create_connection(
                lambda: protocol, sock=ours, ssl=certificates.client(), server_hostname=certificates.NAME
            )
        await talking

    run(main())
    assert protocol.calls == []


@clause("tls.failure.released")
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_nothing_keeps_the_protocol_of_a_handshake_that_failed(loop, run, server_side):
    made: list[weakref.ref] = []

    def factory():
        protocol = Recorder(loop)
        made.append(weakref.ref(protocol))
        return protocol

    async def serve():
        async with serving(loop, factory, ssl=certificates.server("stranger")) as addr:
            for _ in range(3):
                await aside(lambda: peer.refusal(dial(addr), certificates.client()))
            await until(lambda: len(loop_tasks(loop)) == 1)
            await turns(5)
            return look()

    async def attempt(addr):
        with contextlib.suppress(ssl.SSLCertVerificationError):
            await loop.create_connection(factory, *addr, ssl=certificates.client(), server_hostname=certificates.NAME)

    async def main(addr):
        for _ in range(3):
            await attempt(addr)
        await turns(5)
        return look()

    def look():
        gc.collect()
        return [kept() for kept in made]

    if server_side:
        left = run(serve())
    else:
        with peer.serve_refused(certificates.server("stranger")) as (addr, _):
            left = run(main(addr))
    assert left == [None] * 3


def loop_tasks(loop):
    return [task for task in asyncio.all_tasks(loop) if not task.done()]


@clause("tls.failure.loop-closed-meanwhile")
@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"], ids=["idle", "begun"])
def test_handshakes_that_are_under_way_when_the_loop_is_closed_go_quietly(loop_factory, monkeypatch, begun):
    """A server that is shut down has no transport of theirs to close. ResourceWarnings may say that they were open."""
    reported, ignored = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: ignored.append(repr(unraisable.exc_value)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with _left_in_the_handshake(loop_factory(), reported, begun) as client:
            gc.collect()
            assert client.recv(100) == b""
    assert (reported, ignored) == ([], [])


def _left_in_the_handshake(loop, reported, begun):
    """A client that has sent `begun` of its handshake to a server of `loop`, which is closed by now."""
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def main(listening):
        server = await loop.create_server(asyncio.Protocol, sock=listening, ssl=certificates.server())
        client = await aside(socket.create_connection, listening.getsockname(), peers.TIMEOUT)
        client.sendall(begun)
        await turns(20)
        server.close()
        return client

    client = loop.run_until_complete(main(peers.listener()))
    loop.close()
    return client
