"""Stream sockets that are not TCP, though they have its family and type: what holds of TCP is not done to them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from spec._kit import peers
from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="stats() and the reads are tokioloop's"),
]

MPTCP = getattr(socket, "IPPROTO_MPTCP", 262)
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "mptcp": MPTCP, "sctp": socket.IPPROTO_SCTP}
OTHERS = pytest.mark.parametrize("name", ["mptcp", "sctp"])
EVERY = pytest.mark.parametrize("name", ["tcp", "mptcp", "sctp", "unix"])


def pair(name: str) -> tuple[socket.socket, socket.socket]:
    """A connected pair of stream sockets that speak a protocol: the loop's, non-blocking, and the peer's."""
    if name == "unix":
        ours, theirs = socket.socketpair()
    else:
        try:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOLS[name])
        except OSError as exc:
            pytest.skip(f"this kernel has no {name}: {exc}")
        with listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            ours = socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOLS[name])
            ours.connect(listener.getsockname())
            theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.settimeout(peers.TIMEOUT)
    return ours, theirs


class Reader(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.loop.stop()


class Connected:
    """A transport over one end of a pair, and the other end."""

    def __init__(self, loop: Any, name: str) -> None:
        self.loop = loop
        ours, self.peer = pair(name)
        made = loop.run_until_complete(loop.create_connection(lambda: Reader(loop), sock=ours))
        self.transport: asyncio.Transport = made[0]
        self.protocol: Reader = made[1]

    def close(self) -> None:
        self.transport.abort()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.peer.close()


@pytest.fixture
def connected(loop: Any, name: str) -> Iterator[Connected]:
    made = Connected(loop, name)
    yield made
    made.close()


@EVERY
def test_only_tcp_has_nagles_algorithm_switched_off(connected: Connected, name: str) -> None:
    if name == "unix":
        pytest.skip("it has no such option")
    sock = connected.transport.get_extra_info("socket")
    option = socket.TCP_NODELAY if name != "sctp" else 3  # SCTP_NODELAY
    level = socket.IPPROTO_TCP if name != "sctp" else socket.IPPROTO_SCTP
    assert bool(sock.getsockopt(level, option)) == (name == "tcp")


@EVERY
def test_an_endpoint_is_called_by_its_protocol(connected: Connected, loop: Any, name: str) -> None:
    kinds = [endpoint["kind"] for endpoint in loop.stats()["endpoints"]]
    kinds.remove("watcher")  # the loop's own, of signals
    assert kinds == [name if name in ("tcp", "unix") else "stream"]


def events_of_a_message(loop: Any, connected: Connected) -> int:
    """How many I/O events the loop has until a message is read and nothing is left to do."""
    before = loop.stats()["callbacks"]
    connected.peer.sendall(b"message")
    loop.run_forever()
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert connected.protocol.got == b"message"
    return int(loop.stats()["callbacks"]) - before - 3


@EVERY
def test_only_of_tcp_a_short_read_is_taken_for_the_last(connected: Connected, loop: Any, name: str) -> None:
    assert events_of_a_message(loop, connected) == (1 if name == "tcp" else 2)


@OTHERS
def test_a_stream_of_another_protocol_arrives_whole(connected: Connected, loop: Any) -> None:
    data = bytes(range(256)) * 4096
    sending = peers.thread(connected.peer.sendall, data)
    while len(connected.protocol.got) < len(data):
        loop.run_forever()
    sending.result(timeout=peers.TIMEOUT)
    assert connected.protocol.got == data
    connected.transport.write(data)

    def receive() -> bytes:
        try:
            return peers.recv_exactly(connected.peer, len(data))
        finally:
            loop.call_soon_threadsafe(loop.stop)

    receiving = peers.thread(receive)
    loop.run_forever()
    assert receiving.result(timeout=peers.TIMEOUT) == data
