"""What fails leaves nothing to the garbage collector: an exception's traceback holds the frames of all callers.

Stock asyncio leaves cycles where a handshake fails, a datagram endpoint cannot be bound, or sendfile breaks off.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from spec._kit import cycles, peers
from tests import support

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop
CASES: dict[str, tuple[Callable[[Loop], Any], tuple[type[BaseException], ...]]] = {}
STOCK_LEAVES = {"tls garbage", "tls reset", "tls cancelled", "tls of unix", "start_tls garbage", "tls accepted"}
STOCK_LEAVES |= {"udp elsewhere", "udp in use", "sendfile", "sock_sendfile"}


def some_file() -> BinaryIO:
    return Path(__file__).open("rb")


def case(*errors: type[BaseException]) -> Callable[[Callable[[Loop], Any]], None]:
    def register(function: Callable[[Loop], Any]) -> None:
        name = function.__name__.replace("_", " ").replace("start tls", "start_tls").replace("sock ", "sock_")
        CASES[name] = function, errors

    return register


def refused() -> tuple[str, int]:
    return "127.0.0.1", peers.closed_port()


@case(ConnectionRefusedError)
async def create_connection(loop: Loop) -> None:
    await loop.create_connection(asyncio.Protocol, *refused())


@case(TimeoutError)
async def connection_cancelled(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        async with asyncio.timeout(0.01):
            while True:  # until the backlog is full
                await loop.create_connection(asyncio.Protocol, *listening.getsockname())


@case(KeyError)
async def factory(loop: Loop) -> None:
    def fails() -> asyncio.Protocol:
        raise KeyError("of the factory")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        await loop.create_connection(fails, *listening.getsockname())


@case(FileNotFoundError)
async def unix(loop: Loop) -> None:
    await loop.create_unix_connection(asyncio.Protocol, "/nowhere/at/all")


@case(OSError)
async def server(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await loop.create_server(asyncio.Protocol, *listening.getsockname())


@case(ValueError)
async def accepted(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        await loop.connect_accepted_socket(asyncio.Protocol, sock)


@case(OSError)
async def udp_elsewhere(loop: Loop) -> None:
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("192.0.2.1", 1))


@case(OSError)
async def udp_in_use(loop: Loop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=sock.getsockname())


@case(KeyError)
async def udp_factory(loop: Loop) -> None:
    def fails() -> asyncio.DatagramProtocol:
        raise KeyError("of the factory")

    await loop.create_datagram_endpoint(fails, local_addr=("127.0.0.1", 0))


@case(socket.gaierror)
async def getaddrinfo(loop: Loop) -> None:
    await loop.getaddrinfo("nowhere.invalid", 1, flags=socket.AI_NUMERICHOST)


@case(socket.gaierror, OverflowError)
async def getaddrinfo_inline(loop: Loop) -> None:
    await loop.getaddrinfo("127.0.0.1", 1 << 70)


@case(socket.gaierror)
async def getnameinfo(loop: Loop) -> None:
    await loop.getnameinfo(("300.0.0.1", 1), 0)


@case(OSError)
async def sock_connect(loop: Loop) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, refused())


@case(OSError)
async def sock_recv(loop: Loop) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_recv(sock, 10)


@case(TimeoutError)
async def sock_recv_cancelled(loop: Loop) -> None:
    ours, theirs = peers.pair()
    with ours, theirs:
        ours.setblocking(False)
        async with asyncio.timeout(0.01):
            await loop.sock_recv(ours, 10)


@case(OSError)
async def sock_sendfile(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, some_file() as file:
        ours.setblocking(False)
        await loop.sock_sendfile(ours, file)


@case(OSError)
async def sendfile(loop: Loop) -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.close()
    try:
        with some_file() as file:
            await loop.sendfile(transport, file)
    finally:
        transport.close()
        await asyncio.sleep(0)


async def tls(loop: Loop, end: str, make: str = "create_connection", **more: Any) -> None:
    """A TLS connection to a peer that sends garbage, closes, or does nothing."""
    ours, theirs = socket.socketpair()
    with theirs:
        if end == "garbage":
            theirs.send(b"this is no record of TLS at all")
        elif end == "reset":
            theirs.close()
        context = ssl.create_default_context()
        async with asyncio.timeout(0.01 if end == "nothing" else 10):
            if make == "connect_accepted_socket":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            await getattr(loop, make)(asyncio.Protocol, sock=ours, ssl=context, **more)


@case(OSError)
async def tls_garbage(loop: Loop) -> None:
    await tls(loop, "garbage", server_hostname="x")


@case(OSError)
async def tls_reset(loop: Loop) -> None:
    await tls(loop, "reset", server_hostname="x")


@case(TimeoutError)
async def tls_cancelled(loop: Loop) -> None:
    await tls(loop, "nothing", server_hostname="x")


@case(OSError)
async def tls_of_unix(loop: Loop) -> None:
    await tls(loop, "garbage", "create_unix_connection", server_hostname="x")


@case(OSError)
async def tls_accepted(loop: Loop) -> None:
    await tls(loop, "garbage", "connect_accepted_socket")


async def start_tls(loop: Loop, garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
        theirs.send(garbage)
        async with asyncio.timeout(10 if garbage else 0.01):
            await loop.start_tls(transport, protocol, ssl.create_default_context(), server_hostname="x")


@case(OSError)
async def start_tls_garbage(loop: Loop) -> None:
    await start_tls(loop, b"this is no record of TLS at all")


@case(TimeoutError)
async def start_tls_cancelled(loop: Loop) -> None:
    await start_tls(loop, b"")


@case(FileNotFoundError)
async def subprocess(loop: Loop) -> None:
    await asyncio.create_subprocess_exec("/nowhere/at/all")


@case(TimeoutError)
async def subprocess_cancelled(loop: Loop) -> None:
    async with asyncio.timeout(0):
        await asyncio.create_subprocess_exec("/bin/sleep", "3600")


@case(ValueError)
async def pipe(loop: Loop) -> None:
    with some_file() as file:
        await loop.connect_read_pipe(asyncio.Protocol, file)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_fails_leaves_nothing_to_the_garbage_collector(loop: Loop, name: str) -> None:
    if not support.OURS and name in STOCK_LEAVES:
        pytest.skip("stock asyncio leaves a cycle")
    attempt, errors = CASES[name]
    loop.set_exception_handler(lambda _loop, _context: None)
    assert loop.run_until_complete(cycles.left_by(lambda: attempt(loop), *errors)) == []
