"""An echo server on the event loop under test.

    python server.py --loop uvloop --addr 127.0.0.1:25000               sock_accept, sock_recv, sock_sendall
    python server.py --loop uvloop --addr 127.0.0.1:25000 --streams     asyncio.start_server
    python server.py --loop uvloop --addr 127.0.0.1:25000 --proto       asyncio.Protocol
    python server.py --loop uvloop --addr 127.0.0.1:25000 --buffered    asyncio.BufferedProtocol
    python server.py --loop uvloop --addr 127.0.0.1:25000 --udp         asyncio.DatagramProtocol
    python server.py --loop uvloop --addr 127.0.0.1:25000 --pieces 5    asyncio.Protocol that answers in five writes
    python server.py --loop uvloop --addr 127.0.0.1:25000 --discard     reads and says nothing
    python server.py --loop uvloop --addr 127.0.0.1:25000 --flood       writes whatever the peer takes

`--tls FILE` (from certificate.py) serves TLS, with `--streams` or `--buffered`, else by an asyncio.Protocol. An address
with a slash is the path of a Unix socket.

Prints `listening on HOST:PORT` once it accepts (port 0 picks a free one) and serves until it is killed. SIGUSR1 has it
free a large block (allocator.py).
"""

import argparse
import asyncio
import contextlib
import functools
import gc
import os
import resource
import socket
import ssl
from collections.abc import Callable

import allocator
import loops

# The largest message measured, so that no kind of server can take more of it per read than another.
READ_SIZE = 100 * 1024
BACKLOG = 4096
# What is written at once, and how often in a turn, where the peer is flooded; and more than any loop may buffer of it.
FLOOD, FLOODS = bytes(64 * 1024), 16
TOO_MUCH = 64 * 1024 * 1024

Addr = tuple[str, int] | str


def parse_addr(text: str) -> Addr:
    """`HOST:PORT`, the host in brackets where it is an IPv6 address, or the path of a Unix socket.

    Raises ValueError.
    """
    if "/" in text:
        return text
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def format_addr(addr: tuple | str) -> str:
    """The inverse of `parse_addr`, for a socket name."""
    if isinstance(addr, str):
        return addr
    host, port = addr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def use_cpu(cpu: int | None, *, batch: bool = False) -> None:
    """Pin this process to one CPU, where the system has the call for it (Linux).

    `batch`: let it never preempt the running process when it is woken (SCHED_BATCH). On one shared CPU the client then
    sends on all its connections before the server runs, and the server answers them all before the client does.
    """
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    if batch and hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS: the hard limit is "infinity", which is not accepted as a soft one
            resource.setrlimit(resource.RLIMIT_NOFILE, (10240, hard))


def family(addr: Addr) -> socket.AddressFamily:
    """The family of an address."""
    if isinstance(addr, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in addr[0] else socket.AF_INET


def listener(addr: Addr) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises OSError."""
    sock = socket.socket(family(addr))
    if not isinstance(addr, str):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(addr)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def datagram_socket(addr: Addr) -> socket.socket:
    """A bound, non-blocking UDP socket. Raises OSError."""
    sock = socket.socket(family(addr), socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(addr)
    return sock


def tls_context(file: str) -> ssl.SSLContext:
    """Python's defaults for a server, with the key and the chain in this file. Raises OSError (ssl.SSLError)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def no_delay(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off, as the loops that have transports do by themselves."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def serve_raw(sock: socket.socket) -> None:
    """Echo with the loop's sock_* coroutines, one task per connection."""
    loop = asyncio.get_running_loop()
    tasks = set()

    async def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := await loop.sock_recv(connection, READ_SIZE):
                    await loop.sock_sendall(connection, data)
            except ConnectionError:
                pass  # the client left in mid-message, as it does when its time is up

    while True:
        connection, _ = await loop.sock_accept(sock)
        no_delay(connection)
        task = loop.create_task(echo(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def serve_streams(sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Echo with asyncio's streams; drains after each write, as a program that respects its peer does."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(READ_SIZE):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    await asyncio.start_server(echo, sock=sock, backlog=BACKLOG, ssl=tls)
    await asyncio.get_running_loop().create_future()


class Echo(asyncio.Protocol):
    """Writes back whatever arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class PiecesEcho(Echo):
    """Writes back whatever arrives in so many writes."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    def data_received(self, data: bytes) -> None:
        write, step = self.transport.write, -(-len(data) // self.pieces)
        for start in range(0, len(data), step):
            write(data[start : start + step])


class Discard(Echo):
    """Reads."""

    def data_received(self, data: bytes) -> None:
        pass


class Flood(Echo):
    """Writes for as long as it is not paused, a little each turn."""

    paused = gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.loop = asyncio.get_running_loop()
        self.more()

    def more(self) -> None:
        for _ in range(FLOODS):
            if self.paused or self.gone:
                return
            self.transport.write(FLOOD)
        if self.transport.get_write_buffer_size() > TOO_MUCH:
            os.write(2, b"the loop does not pause a protocol that writes too much\n")
            os._exit(1)
        self.loop.call_soon(self.more)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.loop.call_soon(self.more)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gone = True


class BufferedEcho(asyncio.BufferedProtocol):
    """Writes back a copy of what arrives in its own buffer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = memoryview(bytearray(READ_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends back whatever arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.transport.sendto(data, addr)


async def serve_datagrams(sock: socket.socket) -> None:
    """Echo datagrams."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(DatagramEcho, sock=sock)
    await loop.create_future()


async def serve_protocol(
    sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None
) -> None:
    """Serve with a protocol of its own per connection."""
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
    await create(protocol, sock=sock, backlog=BACKLOG, ssl=tls)
    await loop.create_future()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description="Echo server on the event loop under test.")
    parser.add_argument("--loop", default="asyncio", help="NAME (NAME:new_event_loop) or module:factory")
    parser.add_argument("--addr", default="127.0.0.1:25000", help="HOST:PORT; port 0 picks a free one")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--streams", action="store_true", help="asyncio.start_server")
    kind.add_argument("--proto", action="store_true", help="asyncio.Protocol")
    kind.add_argument("--buffered", action="store_true", help="asyncio.BufferedProtocol")
    kind.add_argument("--udp", action="store_true", help="asyncio.DatagramProtocol, over UDP")
    kind.add_argument("--pieces", type=int, help="asyncio.Protocol that answers in so many writes")
    kind.add_argument("--discard", action="store_true", help="asyncio.Protocol that reads only")
    kind.add_argument("--flood", action="store_true", help="asyncio.Protocol that writes only")
    parser.add_argument("--tls", metavar="FILE", help="serve TLS, with the key and certificate in this file")
    parser.add_argument("--cpu", type=int, help="pin the server to this CPU")
    parser.add_argument("--batch", action="store_true", help="never preempt the client (SCHED_BATCH)")
    options = parser.parse_args()
    if options.tls and options.udp:
        parser.error("--tls is not for datagrams")

    use_cpu(options.cpu, batch=options.batch)
    allow_many_files()
    sock = (datagram_socket if options.udp else listener)(parse_addr(options.addr))
    loop = loops.factory(options.loop)()
    tls = tls_context(options.tls) if options.tls else None
    if options.streams:
        serving = serve_streams(sock, tls)
    elif options.udp:
        serving = serve_datagrams(sock)
    elif options.buffered:
        serving = serve_protocol(sock, BufferedEcho, tls)
    elif options.pieces:
        serving = serve_protocol(sock, functools.partial(PiecesEcho, options.pieces), tls)
    elif options.discard or options.flood:
        serving = serve_protocol(sock, Discard if options.discard else Flood, tls)
    elif options.proto or tls:
        serving = serve_protocol(sock, Echo, tls)
    else:
        serving = serve_raw(sock)
    allocator.free_at_signal()
    gc.freeze()  # what the imports left behind is not the loop's to scan
    print("listening on", format_addr(sock.getsockname()), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(serving)


if __name__ == "__main__":
    main()
