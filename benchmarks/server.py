"""An echo server on the event loop under test.

    python server.py --loop uvloop --addr 127.0.0.1:25000               sock_accept, sock_recv, sock_sendall
    python server.py --loop uvloop --addr 127.0.0.1:25000 --streams     asyncio.start_server
    python server.py --loop uvloop --addr 127.0.0.1:25000 --proto       asyncio.Protocol
    python server.py --loop uvloop --addr 127.0.0.1:25000 --buffered    asyncio.BufferedProtocol
    python server.py --loop uvloop --addr 127.0.0.1:25000 --udp         asyncio.DatagramProtocol

`--tls FILE` (from certificate.py) serves TLS, with `--streams` or `--buffered`, else by an asyncio.Protocol.

Prints `listening on HOST:PORT` once it accepts (port 0 picks a free one) and serves until it is killed.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import socket
import ssl

import loops

# The largest message measured, so that no kind of server can take more of it per read than another.
READ_SIZE = 100 * 1024
BACKLOG = 4096


def parse_addr(text: str) -> tuple[str, int]:
    """`HOST:PORT`, the host in brackets where it is an IPv6 address. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def format_addr(addr: tuple) -> str:
    """The inverse of `parse_addr`, for a socket name."""
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


def listener(addr: tuple[str, int]) -> socket.socket:
    """A bound, listening, non-blocking TCP socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in addr[0] else socket.AF_INET
    sock = socket.create_server(addr, family=family, backlog=BACKLOG)
    sock.setblocking(False)
    return sock


def datagram_socket(addr: tuple[str, int]) -> socket.socket:
    """A bound, non-blocking UDP socket. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET, socket.SOCK_DGRAM)
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


async def serve_protocol(sock: socket.socket, protocol: type[asyncio.BaseProtocol], tls: ssl.SSLContext | None) -> None:
    """Echo with a protocol of this class per connection."""
    loop = asyncio.get_running_loop()
    await loop.create_server(protocol, sock=sock, backlog=BACKLOG, ssl=tls)
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
    elif options.proto or tls:
        serving = serve_protocol(sock, Echo, tls)
    else:
        serving = serve_raw(sock)
    gc.freeze()  # what the imports left behind is not the loop's to scan
    print("listening on", format_addr(sock.getsockname()), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(serving)


if __name__ == "__main__":
    main()
