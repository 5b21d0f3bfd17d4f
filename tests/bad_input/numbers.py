"""Numbers that are too large, too small, or none: descriptors, sizes, marks, times, ports, offsets.

None may size memory by what a user says. Each case notes the exceptions, and whether the process grew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from spec._kit import peers
from tests.bad_input import Loop, attempt, case, run
from tests.bad_input.transports import connected

HUGE = (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 70
GROWTH = 64 << 20
"""Bytes that a process may grow for a number that names nothing."""


@contextlib.contextmanager
def bounded(step: Callable[[object], None]) -> Iterator[None]:
    """Notes it if the process ever grew by more than `GROWTH`."""

    def address_space() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()

    before = address_space()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    if address_space() - before > GROWTH:
        step("keeps more address space")
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 > GROWTH:
        step("took more memory")


class Fake(socket.socket):
    """A socket that lies about its number."""

    number = -1

    def fileno(self) -> int:
        return self.number


@contextlib.contextmanager
def fake(number: int) -> Iterator[Fake]:
    ours, theirs = peers.pair()
    sock = Fake(fileno=ours.detach())
    sock.setblocking(False)
    sock.number = number
    with theirs, sock:
        yield sock


# ---- descriptors


@case
def descriptors_that_no_process_has(loop, step):
    with bounded(step):
        for number in (10**4, 10**6, 10**8, 1 << 30, (1 << 31) - 1):
            for add, remove in ((loop.add_reader, loop.remove_reader), (loop.add_writer, loop.remove_writer)):
                attempt(step, add, number, print)
                step(remove(number))


@case(says_the_same=False)
def descriptors_beyond_an_int(loop, step):
    with bounded(step):
        for number in (-(1 << 31), -(1 << 63), -(1 << 70), *HUGE[1:]):
            attempt(step, loop.add_reader, number, print)
            attempt(step, loop.add_writer, number, print)


@case(says_the_same=False)
def file_objects_with_numbers_that_no_process_has(loop, step):
    class File:
        def __init__(self, number: object) -> None:
            self.number = number

        def fileno(self) -> object:
            return self.number

    with bounded(step):
        for number in (10**8, *HUGE, -5, "1", 1.5, None):
            attempt(step, loop.add_reader, File(number), print)
            attempt(step, loop.remove_reader, File(number))


@case(says_the_same=False)
def sockets_with_numbers_that_no_process_has(loop, step):
    with bounded(step):
        for number in (10**8, (1 << 31) - 1):
            with fake(number) as sock:
                attempt(step, run, loop, loop.sock_recv(sock, 1))
                attempt(step, run, loop, loop.sock_recv_into(sock, bytearray(1)))
                attempt(step, run, loop, loop.sock_recvfrom(sock, 1))
                attempt(step, run, loop, loop.sock_sendall(sock, bytes(10_000_000)))
                attempt(step, run, loop, loop.sock_accept(sock))


# ---- sizes


@case(says_the_same=False)
def sizes_to_receive(loop, step):
    with bounded(step):
        for size in (-1, -(1 << 70), 1 << 62, 1 << 63, 1 << 70, 1.5, "1"):
            ours, theirs = peers.pair()
            ours.setblocking(False)
            with ours, theirs:
                theirs.send(b"data")
                attempt(step, run, loop, loop.sock_recv(ours, size))
                attempt(step, run, loop, loop.sock_recvfrom(ours, size))
                attempt(step, run, loop, loop.sock_recvfrom_into(ours, bytearray(10), size))
                step(run(loop, loop.sock_recv(ours, 100)))


@case
def sizes_of_nothing(loop, step):
    ours, theirs = peers.pair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"data")
        step(run(loop, loop.sock_recv(ours, 0)))
        step(run(loop, loop.sock_recv_into(ours, bytearray(0))))
        step(run(loop, loop.sock_recvfrom_into(ours, bytearray(10), 0))[0])


# ---- marks


@case
def marks_of_writing(loop, step):
    with connected(loop) as (transport, _):
        for high in (None, -1, 0, 1, 1.0, 2.5, 10**9, 1 << 62, float("inf"), float("nan"), "1", [], True):
            for low in (None, -1, 0, 1, 0.5, 1 << 62, float("nan"), "0", False):
                attempt(step, transport.set_write_buffer_limits, high, low)
                step([int(min(mark, 1 << 62)) for mark in transport.get_write_buffer_limits()])
        for high, low in ((-(1 << 70), None), (None, -(1 << 70)), (1, 1 << 70)):
            attempt(step, transport.set_write_buffer_limits, high, low)
        for high, low in ((1 << 70, None), (1 << 70, 1 << 69), (None, 1 << 63)):
            attempt(step, transport.set_write_buffer_limits, high, low)
            transport.write(b"x")
        transport.set_write_buffer_limits(high=10, low=5)
        step(transport.get_write_buffer_limits())


@case
def marks_of_datagrams(loop, step):
    transport, _ = run(loop, loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)))
    for high, low in ((None, -1), (1, 2), (2.5, None), ("1", None), (None, float("nan")), (1 << 70, None), (8, 4)):
        attempt(step, transport.set_write_buffer_limits, high, low)
    step(transport.get_write_buffer_limits())
    transport.abort()
    run(loop, asyncio.sleep(0))


# ---- times


@case(says_the_same=False)
def delays_that_are_too_long_or_too_short(loop, step):
    for delay in (-1, -1e300, -(10**301), float("-inf"), False):
        loop.call_later(delay, step, str(delay)[:9])
    for delay in (1e300, float("inf"), 10**300, 1 << 70, 1e18):
        loop.call_later(delay, step, "too early")
        loop.call_at(delay, step, "too early")
    for delay in (10**400, -(10**400)):
        attempt(step, loop.call_later, delay, print)
    attempt(step, loop.call_at, -(10**300), step, "long ago")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@case
def a_sleep_and_a_timeout_that_never_end(loop, step):
    async def main():
        sleeping = [loop.create_task(asyncio.sleep(delay)) for delay in (1e300, float("inf"), 10**300)]
        await asyncio.sleep(0.01)
        for task in sleeping:
            step(task.done())
            task.cancel()
        await asyncio.wait(sleeping)
        async with asyncio.timeout(float("inf")):
            await asyncio.sleep(0)
        attempt(step, asyncio.timeout_at, 1e300)

    run(loop, main())


@case(says_the_same=False)
def timeouts_of_tls(loop, step):
    import ssl

    context = ssl.create_default_context()
    for timeout in (-1, 0, 0.0, float("-inf"), "1", [], 10**400):
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            ours, theirs = peers.pair()
            with theirs, ours:
                named = {"sock": ours, "ssl": context, "server_hostname": "x", name: timeout}
                attempt(step, run, loop, loop.create_connection(asyncio.Protocol, **named))


# ---- servers, addresses, signals, files


@case(says_the_same=False)
def backlogs(loop, step):
    for backlog in (-1, 0, 1, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 63, 1 << 70, -(1 << 31), "1", 1.5, None):

        async def main(backlog=backlog):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=backlog)
            server.close()
            await asyncio.sleep(0)

        step(str(backlog))
        attempt(step, run, loop, main())


@case(says_the_same=False)
def ports(loop, step):
    for port in (-1, 65536, 1 << 31, 1 << 40, 1 << 63, 1 << 70, "65536", "-1", 1.5, b"70000"):
        step(str(port))
        attempt(step, run, loop, loop.getaddrinfo("127.0.0.1", port))
        attempt(step, run, loop, loop.getnameinfo(("127.0.0.1", port), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV))
        attempt(step, run, loop, loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("::1", port)))


@case(says_the_same=False)
def addresses_of_datagrams(loop, step):
    loop.set_exception_handler(lambda _loop, context: step(type(context["exception"]).__name__))
    for port in (-1, 65536, 1 << 31, 1 << 63, 1 << 70, "1", 1.5):

        async def main(port=port):
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            try:
                transport.sendto(b"x", ("127.0.0.1", port))
            finally:
                step(transport.is_closing())
                transport.abort()
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        step(str(port))
        attempt(step, run, loop, main())


@case
def signal_numbers(loop, step):
    for number in (-1, 0, 32, 65, 1000, 1 << 31, 1 << 63, 1 << 70, 1.5, "1", None):
        attempt(step, loop.add_signal_handler, number, print)
        attempt(step, loop.remove_signal_handler, number)


@case
def offsets_and_counts_of_files(loop, step):
    ours, theirs = peers.pair()
    with ours, theirs, tempfile.TemporaryFile() as file:
        ours.setblocking(False)
        file.write(b"content")
        file.flush()
        for offset, count in (
            (-1, None),
            (0, -1),
            (0, 0),
            (1.5, None),
            (0, 1.5),
            ("0", None),
            (1 << 62, None),
            (0, "1"),
        ):
            step((offset, count))
            attempt(step, run, loop, loop.sock_sendfile(ours, file, offset, count))
    with tempfile.TemporaryFile() as file, connected(loop) as (transport, peer):
        file.write(b"content")
        file.flush()
        for offset, count in ((-1, None), (0, -1), (0, 0), (1.5, None), (0, 1.5), (1 << 62, None), (0, 1 << 62)):
            step((offset, count))
            attempt(step, run, loop, loop.sendfile(transport, file, offset, count))
        step(peer.recv(100))


class Lends(asyncio.BufferedProtocol):
    """Lends a buffer of some size."""

    def __init__(self, buffer: Any, ended: asyncio.Future[None]) -> None:
        self.buffer, self.ended = buffer, ended

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or EOFError())


@case(says_the_same=False)
def buffers_that_lie_about_their_size(loop: Loop, step: Callable[[object], None]) -> None:
    class Lies(bytearray):
        def __init__(self, length: int) -> None:
            super().__init__(10)
            self.length = length

        def __len__(self) -> int:
            return self.length

    loop.set_exception_handler(lambda _loop, context: step(type(context["exception"]).__name__))
    with bounded(step):
        for buffer in (Lies(1 << 62), Lies(0), Lies(-1), memoryview(bytearray(10))[::2], os.urandom(1)):
            ours, theirs = peers.pair()
            with theirs:
                theirs.send(b"x")

                async def main(buffer=buffer, ours=ours):
                    ended = loop.create_future()
                    transport, _ = await loop.create_connection(lambda: Lends(buffer, ended), sock=ours)
                    try:
                        await ended
                    finally:
                        transport.abort()

                attempt(step, run, loop, main())
