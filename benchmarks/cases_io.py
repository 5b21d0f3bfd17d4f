"""Single operations that move bytes or start processes; both ends of every connection are of one loop.

See cases.py for what a case is.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import certificate
from cases import Loop, Meter, case


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected non-blocking TCP sockets over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far


@case("`sock_recv`, `sock_sendall` ping-pong, 1 KiB, per hop", 5_000)
def sock_ping_pong(loop: Loop, count: int, meter: Meter) -> int:
    rounds = -(-count // 2)
    message = bytes(1024)

    async def echo(sock: socket.socket) -> None:
        for _ in range(rounds):
            await loop.sock_sendall(sock, await loop.sock_recv(sock, 65536))

    async def main(near: socket.socket, far: socket.socket) -> None:
        other = loop.create_task(echo(far))
        await asyncio.sleep(0)
        with meter:
            for _ in range(rounds):
                await loop.sock_sendall(near, message)
                await loop.sock_recv(near, 65536)
        await other

    with tcp_pair() as (near, far):
        loop.run_until_complete(main(near, far))
    return rounds * 2


class Peer(asyncio.Protocol):
    """One end: answers each whole message until `left` messages have been answered, then resolves `done`."""

    def __init__(self, loop: Loop, pieces: list[bytes], left: int) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))
        self.left = left
        self.missing = self.size
        self.made = loop.create_future()
        self.done = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.missing = self.size
            self.left -= 1
            if self.left < 0:
                self.done.set_result(None)
            else:
                self.send()

    def send(self) -> None:
        write = self.transport.write
        for piece in self.pieces:
            write(piece)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


class BufferedPeer(asyncio.BufferedProtocol, Peer):
    """The same end as a BufferedProtocol."""

    buffer = memoryview(bytearray(256 * 1024))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self.buffer[:nbytes])


# Makes a listening server and a connection to it, with a protocol for each end.
Connect = Callable[[Loop, Any, Any], Awaitable[asyncio.AbstractServer]]


async def over_tcp(loop: Loop, near: Any, far: Any) -> asyncio.AbstractServer:
    """The two ends of a TCP connection."""
    server = await loop.create_server(lambda: far, "127.0.0.1", 0)
    await loop.create_connection(lambda: near, *server.sockets[0].getsockname())
    return server


async def over_unix(loop: Loop, near: Any, far: Any) -> asyncio.AbstractServer:
    """The two ends of a connection over a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "socket"))
        server = await loop.create_unix_server(lambda: far, path)
        await loop.create_unix_connection(lambda: near, path)
    return server


async def over_tls(loop: Loop, near: Any, far: Any) -> asyncio.AbstractServer:
    """The two ends of a TLS connection."""
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "server.pem")
        certificate.write(pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server = await loop.create_server(lambda: far, "127.0.0.1", 0, ssl=context)
    await loop.create_connection(lambda: near, *server.sockets[0].getsockname(), ssl=client)
    return server


def ping_pong(
    loop: Loop, count: int, meter: Meter, pieces: list[bytes], kind: type[Peer] = Peer, connect: Connect = over_tcp
) -> int:
    """Messages of these pieces, to and fro between two transports of one loop; an operation is one way."""
    rounds = -(-count // 2)

    async def main() -> None:
        near, far = kind(loop, pieces, rounds - 1), kind(loop, pieces, rounds)
        server = await connect(loop, near, far)
        await far.made
        with meter:
            near.send()
            await near.done
        near.transport.close()
        far.transport.close()
        await near.lost
        await far.lost
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return rounds * 2


@case("protocol ping-pong, 1 KiB, per hop", 5_000)
def protocol_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)])


@case("buffered protocol ping-pong, 1 KiB, per hop", 5_000)
def buffered_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)], BufferedPeer)


@case("protocol ping-pong, 100 KiB, per hop", 1_000)
def protocol_100_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(100 * 1024)])


@case("protocol ping-pong, five writes of 200 B per message, per message", 3_000)
def five_writes(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(200)] * 5)


@case("protocol ping-pong over a Unix socket, 1 KiB, per hop", 5_000)
def unix_ping_pong(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)], connect=over_unix)


@case("TLS ping-pong, 1 KiB, per hop", 3_000)
def tls_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return ping_pong(loop, count, meter, [bytes(1024)], connect=over_tls)


@case("pipes ping-pong, 1 KiB, per hop", 5_000)
def pipe_ping_pong(loop: Loop, count: int, meter: Meter) -> int:
    rounds = -(-count // 2)
    message = [bytes(1024)]

    class Reading(asyncio.Protocol):
        """Hands what a pipe brings to the end that writes to the other one."""

        def __init__(self, peer: Peer) -> None:
            self.peer, self.data_received = peer, peer.data_received
            self.lost = loop.create_future()

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        peers = [Peer(loop, message, rounds - 1), Peer(loop, message, rounds)]
        pipes = [os.pipe(), os.pipe()]
        readers = []
        for at, peer in enumerate(peers):
            await loop.connect_write_pipe(lambda peer=peer: peer, os.fdopen(pipes[at][1], "wb", 0))
            reading = Reading(peer)
            readers.append(reading)
            await loop.connect_read_pipe(lambda reading=reading: reading, os.fdopen(pipes[1 - at][0], "rb", 0))
        with meter:
            peers[0].send()
            await peers[0].done
        for peer in peers:
            peer.transport.close()
        for ended in (*peers, *readers):
            await ended.lost

    loop.run_until_complete(main())
    return rounds * 2


class DatagramPeer(asyncio.DatagramProtocol):
    """One end: sends back each datagram until `left` have come, then resolves `done`."""

    def __init__(self, loop: Loop, left: int) -> None:
        self.left = left
        self.done = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.left -= 1
        if self.left >= 0:
            self.transport.sendto(data, addr)
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


def datagrams(loop: Loop, count: int, meter: Meter, window: int) -> int:
    """1 KiB to and fro between two UDP sockets of one loop, `window` datagrams under way; an operation is one way."""
    rounds = -(-count // 2)

    async def main() -> None:
        near, far = DatagramPeer(loop, rounds - window), DatagramPeer(loop, rounds)
        for peer in (near, far):
            await loop.create_datagram_endpoint(lambda peer=peer: peer, local_addr=("127.0.0.1", 0))
        to = far.transport.get_extra_info("sockname")
        with meter:
            for _ in range(window):
                near.transport.sendto(bytes(1024), to)
            await near.done
        for peer in (near, far):
            peer.transport.close()
            await peer.lost

    loop.run_until_complete(main())
    return rounds * 2


@case("datagram ping-pong, 1 KiB, per hop", 5_000)
def datagram_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    return datagrams(loop, count, meter, 1)


@case("datagrams, 1 KiB, ten under way, per hop", 5_000)
def datagram_10_under_way(loop: Loop, count: int, meter: Meter) -> int:
    return datagrams(loop, count, meter, 10)


@case("streams ping-pong, 1 KiB, per hop", 4_000)
def streams_1_kib(loop: Loop, count: int, meter: Meter) -> int:
    rounds = -(-count // 2)
    message = bytes(1024)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with meter:
            for _ in range(rounds):
                writer.write(message)
                await writer.drain()
                await reader.readexactly(1024)
        writer.close()
        await reader.read()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return rounds * 2


@case("connection opened, accepted and closed (both ends)", 300)
def open_close(loop: Loop, count: int, meter: Meter) -> int:
    class Brief(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = loop.create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost.set_result(exc)

    accepted: list[Awaitable] = []

    def accept() -> Brief:
        protocol = Brief()
        accepted.append(protocol.lost)
        return protocol

    async def main() -> None:
        server = await loop.create_server(accept, "127.0.0.1", 0)
        addr = server.sockets[0].getsockname()
        with meter:
            for _ in range(count):
                _, mine = await loop.create_connection(Brief, *addr)
                mine.transport.close()
                await mine.lost
        _, waiting = await asyncio.wait(accepted, timeout=10)
        if waiting:
            raise RuntimeError("the accepted end is not told that its peer closed")
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    return count


@case("child started and waited for", 60)
def spawn(loop: Loop, count: int, meter: Meter) -> int:
    async def main() -> None:
        with meter:
            for _ in range(count):
                process = await asyncio.create_subprocess_exec("/bin/true")
                if await process.wait() != 0:
                    raise RuntimeError("/bin/true failed")

    loop.run_until_complete(main())
    return count


@case("child started, `communicate` over three pipes", 60)
def communicate(loop: Loop, count: int, meter: Meter) -> int:
    pipe = asyncio.subprocess.PIPE

    async def main() -> None:
        with meter:
            for _ in range(count):
                process = await asyncio.create_subprocess_exec("/bin/cat", stdin=pipe, stdout=pipe, stderr=pipe)
                if await process.communicate(b"through") != (b"through", b""):
                    raise RuntimeError("/bin/cat lost something")

    loop.run_until_complete(main())
    return count
