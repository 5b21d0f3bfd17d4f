"""Datagram transports, where the rules are the loop's own: the collector, panics, descriptors, families of sockets."""

from __future__ import annotations

import asyncio
import errno
import gc
import shutil
import socket
import subprocess
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests import support

pytestmark = pytest.mark.timeout(60)

LOCALHOST = ("127.0.0.1", 0)
# <bits/in.h>; Python has no name for it.
IP_RECVERR = 11


class Recorder(asyncio.DatagramProtocol):
    """Keeps what it is told."""

    knot: Any = None

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def opened(loop: asyncio.AbstractEventLoop, **options: Any) -> Recorder:
    """A new endpoint's protocol."""
    if not options:
        options = {"local_addr": LOCALHOST}
    return loop.run_until_complete(loop.create_datagram_endpoint(Recorder, **options))[1]


def ticks(loop: asyncio.AbstractEventLoop, count: int) -> None:
    """That many turns."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def received(loop: asyncio.AbstractEventLoop, protocol: Recorder, count: int) -> list[bytes]:
    """What the protocol got, once it got so much."""

    async def main() -> None:
        async with asyncio.timeout(15):
            while len(protocol.got) < count:
                await asyncio.sleep(0)

    loop.run_until_complete(main())
    return protocol.got


# ---- the collector


def test_a_transport_shows_the_collector_its_protocol(loop: asyncio.AbstractEventLoop) -> None:
    protocol = opened(loop)
    assert any(found is protocol for found in gc.get_referents(protocol.transport))
    protocol.transport.close()


def test_a_transport_tied_to_its_protocol_is_freed_once_lost(loop: asyncio.AbstractEventLoop) -> None:
    protocol = opened(loop)
    protocol.knot = protocol.transport
    dead = weakref.ref(protocol)
    protocol.transport.close()
    ticks(loop, 2)
    assert protocol.lost == [None]
    del protocol
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("paused", [True, False])
def test_an_open_transport_is_collected_with_its_loop(*, closed: bool, paused: bool) -> None:
    loop = support.new_loop()
    protocol = opened(loop)
    protocol.knot = loop
    if paused:
        # Datagrams that were received and not delivered are shown to the collector, too.
        class Pausing(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                self.transport.pause_reading()

        protocol.transport.set_protocol(keeper := Pausing())
        keeper.transport, keeper.knot = protocol.transport, protocol
        for _ in range(3):
            protocol.transport.sendto(b"x", protocol.transport.get_extra_info("sockname"))
        assert received(loop, keeper, 1) == [b"x"]
        del keeper, Pausing
    dead = weakref.ref(protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        if closed:
            loop.close()
        del loop, protocol
        gc.collect()
        gc.collect()
    assert dead() is None


# ---- the kernel


def test_what_is_sent_in_a_turn_arrives_between_two_ends_in_one_loop(loop: asyncio.AbstractEventLoop) -> None:
    near, far = opened(loop), opened(loop)
    to = near.transport.get_extra_info("sockname")
    for number in range(10):
        far.transport.sendto(b"%d" % number, to)
    assert far.transport.get_write_buffer_size() == 0
    assert received(loop, near, 10) == [b"%d" % number for number in range(10)]

    async def main() -> int:
        for number in range(10):
            far.transport.sendto(b"%d" % number, to)
        return len(near.got)

    assert loop.run_until_complete(main()) == 10
    assert len(received(loop, near, 20)) == 20
    for protocol in near, far:
        protocol.transport.close()
    ticks(loop, 2)


def test_errors_that_nobody_takes_do_not_keep_the_loop_busy(loop: asyncio.AbstractEventLoop) -> None:
    """With IP_RECVERR set, the kernel signals an error until somebody reads the socket's error queue."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(LOCALHOST)
        nobody = gone.getsockname()
    protocol = opened(loop, remote_addr=nobody)
    protocol.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    protocol.transport.sendto(b"x")

    async def told() -> None:
        async with asyncio.timeout(15):
            while not protocol.errors:
                await asyncio.sleep(0)

    loop.run_until_complete(told())
    ticks(loop, 50)
    loop.call_later(0.05, loop.stop)  # the loop has nothing else to do
    if support.OURS:
        before = loop.stats()["turns"]
        loop.run_forever()
        assert loop.stats()["turns"] - before < 20
    else:
        loop.run_forever()
    assert {error.errno for error in protocol.errors if isinstance(error, OSError)} == {errno.ECONNREFUSED}
    protocol.transport.close()
    ticks(loop, 2)


def test_a_socket_closed_under_its_transport_sends_nothing_through_its_number(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The user's socket is asked for its number before each call: another file that has it by now is left alone."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(LOCALHOST)
    protocol = opened(loop, sock=sock)
    number = sock.fileno()
    sock.close()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target,
    ):
        assert other.fileno() == number, "the lowest free number is given out first"
        target.bind(LOCALHOST)
        target.setblocking(False)
        other.bind(LOCALHOST)
        protocol.transport.sendto(b"stray", target.getsockname())
        ticks(loop, 3)
        with pytest.raises(BlockingIOError):
            target.recv(100)
        assert [getattr(error, "errno", None) for error in protocol.errors] == [errno.EBADF]
        protocol.transport.close()
        ticks(loop, 2)
        assert protocol.lost == [None]
        other.sendto(b"alive", target.getsockname())


@pytest.mark.skipif(not support.OURS, reason="what is written is coalesced")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_endpoint_closes_though_what_leaves_before_raises_keyboard_interrupt(
    loop: asyncio.AbstractEventLoop, end: str
) -> None:
    class Interrupted(Recorder):
        def error_received(self, exc: Exception) -> None:
            raise KeyboardInterrupt

    def send_and_end() -> None:
        # Longer than a datagram may be, and short enough to wait for the end of the turn.
        protocol.transport.sendto(bytes(65_520), transport.get_extra_info("sockname"))
        getattr(protocol.transport, end)()

    loop.coalesce_writes = True  # type: ignore[attr-defined]
    making = loop.create_datagram_endpoint(Interrupted, local_addr=LOCALHOST)
    transport, protocol = loop.run_until_complete(making)
    loop.call_soon(send_and_end)
    with pytest.raises(KeyboardInterrupt):
        ticks(loop, 1)
    assert transport.is_closing()
    ticks(loop, 3)
    assert protocol.lost == [None]


def test_netlink_addresses_are_those_of_the_socket_module(loop: asyncio.AbstractEventLoop) -> None:
    """Families whose addresses the loop does not know go through Python's socket."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
    sock.bind((0, 0))
    got: list[tuple[bytes, Any]] = []

    class Netlink(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            got.append((data, addr))

    protocol = loop.run_until_complete(loop.create_datagram_endpoint(Netlink, sock=sock))[1]
    # "List the network interfaces", the message type 18 of rtnetlink(7).
    request = (32).to_bytes(4, "little") + bytes([18, 0, 1, 3]) + bytes(24)
    protocol.transport.sendto(request, (0, 0))
    received(loop, protocol, 1)
    assert got[0][1] == (0, 0)
    protocol.transport.close()
    ticks(loop, 2)


# ---- no panic crosses into Python


def test_a_panic_is_one_report_and_costs_one_endpoint(loop: asyncio.AbstractEventLoop) -> None:
    if not support.OURS:
        pytest.skip("panics are of Rust's")
    import tokioloop._tokioloop as extension

    if not hasattr(extension, "panic_next_event"):
        pytest.skip("this build has no failpoints (make build has; a release has not)")
    contexts: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: contexts.append(context))
    hit, spared = opened(loop), opened(loop)
    extension.panic_next_event(hit.transport)
    spared.transport.sendto(b"!", hit.transport.get_extra_info("sockname"))
    ticks(loop, 5)
    (context,) = contexts
    assert "panic" in context["message"]
    assert context["transport"] is hit.transport
    assert [type(exc) for exc in hit.lost] == [RuntimeError]
    spared.transport.sendto(b"?", spared.transport.get_extra_info("sockname"))
    assert received(loop, spared, 1) == [b"?"]
    spared.transport.close()
    ticks(loop, 2)


# ---- what loop.stats() counts


def test_every_way_to_send_and_to_receive_is_counted_once(loop: asyncio.AbstractEventLoop) -> None:
    if not support.OURS:
        pytest.skip("stats() is TokioLoop's")
    near = opened(loop)
    to = near.transport.get_extra_info("sockname")
    far = opened(loop, remote_addr=to)

    async def main() -> None:
        near.transport.sendto(b"new", to)
        near.transport.sendto(b"corked", to)
        near.transport.sendto(b"again", to)

    loop.run_until_complete(main())
    near.transport.sendto(b"known", to)
    near.transport.sendto(b"by name", ("localhost", to[1]))
    far.transport.sendto(b"connected")
    sizes = [len(data) for data in received(loop, near, 6)]
    by_fd = {entry["fd"]: entry for entry in loop.stats()["endpoints"]}
    mine, others = (by_fd[end.transport.get_extra_info("socket").fileno()] for end in (near, far))
    assert (mine["messages_in"], mine["bytes_in"]) == (6, sum(sizes))
    assert (mine["messages_out"], mine["bytes_out"]) == (5, sum(sizes) - len(b"connected"))
    assert (others["messages_out"], others["bytes_out"]) == (1, len(b"connected"))
    for protocol in near, far:
        protocol.transport.close()
    ticks(loop, 2)


# ---- system calls

BURSTS = """
import asyncio, sys
from tests import support

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)

class Burst(Echo):
    def datagram_received(self, data, addr):
        self.left -= 1
        if not self.left:
            done.set_result(None)

async def main():
    global done
    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    to = echo.get_extra_info("sockname")
    transport, burst = await loop.create_datagram_endpoint(Burst, ("127.0.0.1", 0))
    for _ in range(100):
        done, burst.left = loop.create_future(), 10
        for _ in range(10):
            transport.sendto(b"x", to)
        await done
    echo.close()
    transport.close()

with asyncio.Runner(loop_factory=support.factory()) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("coalesce", [False, True])
def test_ten_datagrams_of_a_turn_are_ten_calls_or_one(tmp_path: Path, coalesce: bool) -> None:
    strace = shutil.which("strace")
    if strace is None or not support.OURS:
        pytest.skip("counts tokioloop's system calls with strace")
    summary = tmp_path / "summary"
    done = subprocess.run(
        [strace, "-f", "-c", "-e", "trace=network", "-o", str(summary), sys.executable, "-c", BURSTS],
        cwd=support.PROJECT,
        env=support.environment(TOKIOLOOP_COALESCE=str(int(coalesce))),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if done.returncode != 0 and "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    rows = [row.split() for row in summary.read_text().splitlines()]
    calls = {row[-1]: int(row[3]) for row in rows if len(row) > 4 and row[3].isdigit()}
    # 2000 datagrams: both ends send ten per turn.
    assert (calls.get("sendto", 0) <= 50) is coalesce, calls
    assert (150 <= calls.get("sendmmsg", 0) <= 250) is coalesce, calls
    assert 2000 <= calls["recvfrom"] <= 2300, calls


@pytest.mark.parametrize("peers", [3, 9, 200])
def test_each_of_many_peers_is_known_by_its_address_and_answered(loop: asyncio.AbstractEventLoop, peers: int) -> None:
    class Answering(Recorder):
        senders: list[Any]

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.got.append(data)
            self.senders.append(addr)
            # By the tuple that came, and by one that is only equal.
            self.transport.sendto(data + b" received", addr)
            self.transport.sendto(data + b" answered", (addr[0], addr[1]))

    create = loop.create_datagram_endpoint(Answering, local_addr=LOCALHOST)
    transport, protocol = loop.run_until_complete(create)
    protocol.senders = []
    address = transport.get_extra_info("sockname")
    socks = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(peers)]
    try:
        for sock in socks:
            sock.bind(LOCALHOST)
            sock.settimeout(15)
        for _ in range(3):
            for number, sock in enumerate(socks):
                sock.sendto(b"%d" % number, address)
                if number % 10 == 9:
                    received(loop, protocol, len(protocol.got) + 10)
            received(loop, protocol, -len(protocol.got) % peers + len(protocol.got))
            ticks(loop, 2)
            for number, sock in enumerate(socks):
                assert sock.recv(100) == b"%d received" % number
                assert sock.recv(100) == b"%d answered" % number
        assert protocol.senders == [sock.getsockname() for sock in socks] * 3
    finally:
        for sock in socks:
            sock.close()
        transport.close()
        ticks(loop, 2)
