"""The loop is whole: every method of asyncio's abstract loop, transports and server is there and does its work.

Each public name of the abstract classes has a plausible call here; a name that a newer CPython adds fails the test
until it has one. What a method does in detail is for `spec/` to say: here it must be the loop's own, and must not raise
`NotImplementedError`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import io
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from spec._kit import peers
from tests import support

LOOP = asyncio.AbstractEventLoop
TIMEOUT = 20.0
"""Seconds a call may take."""


def names_of(abstract: type) -> list[str]:
    """The public names of an abstract class."""
    return [name for name in dir(abstract) if not name.startswith("_")]


class Everything(asyncio.SubprocessProtocol, asyncio.Protocol, asyncio.DatagramProtocol):
    """A protocol of every kind, which knows when it is over."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


async def eventually(future: Any) -> Any:
    return await asyncio.wait_for(future, TIMEOUT)


# ---- the loop

Call = Callable[["asyncio.AbstractEventLoop", Path], Any]


def on_pair(call: Callable[[Any, socket.socket, socket.socket], Awaitable[Any]]) -> Call:
    """A call with a connected pair of non-blocking sockets."""

    async def main(loop: asyncio.AbstractEventLoop, _folder: Path) -> Any:
        ours, theirs = peers.unix_pair()
        theirs.setblocking(False)
        with ours, theirs:
            return await call(loop, ours, theirs)

    return main


def on_datagrams(call: Callable[[Any, socket.socket, Any], Awaitable[Any]]) -> Call:
    """A call with a UDP socket that a datagram waits at, and its address."""

    async def main(loop: asyncio.AbstractEventLoop, _folder: Path) -> Any:
        with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as other:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            other.sendto(b"datagram", sock.getsockname())
            return await call(loop, sock, sock.getsockname())

    return main


async def connect(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    async with connected(loop) as transport:
        assert isinstance(transport, asyncio.Transport)


async def accept(loop: Any, _folder: Path) -> None:
    with peers.listener() as listening, socket.create_connection(listening.getsockname()):
        conn, _ = await loop.sock_accept(listening)
        conn.close()


async def connect_accepted(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    ours, theirs = peers.pair()
    with theirs:
        transport, protocol = await loop.connect_accepted_socket(Everything, ours)
        transport.abort()
        await protocol.lost


async def connect_socket(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    with peers.listener() as listening, socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, listening.getsockname())


async def read_pipe(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    reading, writing = os.pipe()
    with io.FileIO(writing, "wb"):
        transport, protocol = await loop.connect_read_pipe(Everything, io.FileIO(reading, "rb"))
        transport.close()
        await protocol.lost


async def write_pipe(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    reading, writing = os.pipe()
    with io.FileIO(reading, "rb"):
        transport, protocol = await loop.connect_write_pipe(Everything, io.FileIO(writing, "wb"))
        transport.close()
        await protocol.lost


async def datagrams(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    transport, protocol = await loop.create_datagram_endpoint(Everything, local_addr=("127.0.0.1", 0))
    transport.close()
    await protocol.lost


async def serve(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    async with await loop.create_server(asyncio.Protocol, "127.0.0.1", 0):
        pass


async def serve_unix(loop: asyncio.AbstractEventLoop, folder: Path) -> None:
    accepted = loop.create_future()

    def accept() -> Everything:
        accepted.set_result(Everything())
        return accepted.result()  # type: ignore[no-any-return]

    async with await loop.create_unix_server(accept, folder / "socket"):
        transport, protocol = await loop.create_unix_connection(Everything, str(folder / "socket"))
        transport.close()
        await protocol.lost
        await (await accepted).lost


async def send_file(loop: asyncio.AbstractEventLoop, folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"x" * 1000)
    with io.FileIO(path) as file, peers.listener() as listening:
        transport, protocol = await loop.create_connection(Everything, *listening.getsockname())
        with closing(listening.accept()[0]):
            assert await loop.sendfile(transport, file) == 1000
            transport.close()
            await protocol.lost


async def sock_send_file(loop: Any, folder: Path) -> None:
    path = folder / "file"
    path.write_bytes(b"x" * 1000)
    ours, theirs = peers.pair()
    with io.FileIO(path) as file, ours, theirs:
        assert await loop.sock_sendfile(ours, file) == 1000


async def start_tls(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    """The peer hangs up in the handshake."""
    ours, theirs = peers.pair()
    transport, protocol = await loop.create_connection(asyncio.Protocol, sock=ours)
    theirs.close()
    with pytest.raises(OSError):
        await loop.start_tls(transport, protocol, ssl.create_default_context(), server_hostname="localhost")


async def signals(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    called = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, called.set_result, "called")
    signal.raise_signal(signal.SIGUSR1)
    assert await called == "called"
    assert loop.remove_signal_handler(signal.SIGUSR1) is True


def watch(loop: asyncio.AbstractEventLoop, _folder: Path) -> None:
    with closing(socket.socket()) as sock:
        loop.add_reader(sock, print)
        loop.add_writer(sock, print)
        assert loop.remove_reader(sock) and loop.remove_writer(sock)


async def run_process(loop: asyncio.AbstractEventLoop, shell: bool) -> None:
    transport: asyncio.SubprocessTransport
    if shell:
        transport, protocol = await loop.subprocess_shell(Everything, "exit 3", stdin=None, stdout=None, stderr=None)
    else:
        arguments = (sys.executable, "-S", "-c", "raise SystemExit(3)")
        transport, protocol = await loop.subprocess_exec(Everything, *arguments, stdin=None, stdout=None, stderr=None)
    await protocol.lost
    assert transport.get_returncode() == 3
    transport.close()


CALLS: dict[str, Call] = {
    "add_reader": watch,
    "add_signal_handler": signals,
    "add_writer": watch,
    "call_at": lambda loop, _: loop.call_at(loop.time(), print).cancel(),
    "call_exception_handler": lambda loop, _: (
        loop.set_exception_handler(lambda *_: None),
        loop.call_exception_handler({"message": "x"}),
    ),
    "call_later": lambda loop, _: loop.call_later(0, print).cancel(),
    "call_soon": lambda loop, _: loop.call_soon(print).cancel(),
    "call_soon_threadsafe": lambda loop, _: loop.call_soon_threadsafe(print).cancel(),
    "close": lambda loop, _: loop.close(),
    "connect_accepted_socket": connect_accepted,
    "connect_read_pipe": read_pipe,
    "connect_write_pipe": write_pipe,
    "create_connection": connect,
    "create_datagram_endpoint": datagrams,
    "create_future": lambda loop, _: loop.create_future(),
    "create_server": serve,
    "create_task": lambda loop, _: loop.run_until_complete(loop.create_task(asyncio.sleep(0))),
    "create_unix_connection": serve_unix,
    "create_unix_server": serve_unix,
    "default_exception_handler": lambda loop, _: loop.default_exception_handler({"message": "expected in the log"}),
    "get_debug": lambda loop, _: loop.get_debug(),
    "get_exception_handler": lambda loop, _: loop.get_exception_handler(),
    "get_task_factory": lambda loop, _: loop.get_task_factory(),
    "getaddrinfo": lambda loop, _: loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80)),
    "getnameinfo": lambda loop, _: loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80))),
    "is_closed": lambda loop, _: loop.is_closed(),
    "is_running": lambda loop, _: loop.is_running(),
    "remove_reader": watch,
    "remove_signal_handler": signals,
    "remove_writer": watch,
    "run_forever": lambda loop, _: (loop.call_soon(loop.stop), loop.run_forever()),
    "run_in_executor": lambda loop, _: loop.run_until_complete(loop.run_in_executor(None, len, ())),
    "run_until_complete": lambda loop, _: loop.run_until_complete(asyncio.sleep(0)),
    "sendfile": send_file,
    "set_debug": lambda loop, _: loop.set_debug(True),
    "set_default_executor": lambda loop, _: loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1)),
    "set_exception_handler": lambda loop, _: loop.set_exception_handler(None),
    "set_task_factory": lambda loop, _: loop.set_task_factory(None),
    "shutdown_asyncgens": lambda loop, _: loop.run_until_complete(loop.shutdown_asyncgens()),
    "shutdown_default_executor": lambda loop, _: loop.run_until_complete(loop.shutdown_default_executor()),
    "sock_accept": accept,
    "sock_connect": connect_socket,
    "sock_recv": on_pair(lambda loop, ours, theirs: (theirs.send(b"x"), loop.sock_recv(ours, 1))[1]),
    "sock_recv_into": on_pair(
        lambda loop, ours, theirs: (theirs.send(b"x"), loop.sock_recv_into(ours, bytearray(1)))[1]
    ),
    "sock_recvfrom": on_datagrams(lambda loop, sock, _: loop.sock_recvfrom(sock, 100)),
    "sock_recvfrom_into": on_datagrams(lambda loop, sock, _: loop.sock_recvfrom_into(sock, bytearray(100))),
    "sock_sendall": on_pair(lambda loop, ours, _: loop.sock_sendall(ours, b"x")),
    "sock_sendfile": sock_send_file,
    "sock_sendto": on_datagrams(lambda loop, sock, address: loop.sock_sendto(sock, b"x", address)),
    "start_tls": start_tls,
    "stop": lambda loop, _: loop.stop(),
    "subprocess_exec": lambda loop, _: run_process(loop, False),
    "subprocess_shell": lambda loop, _: run_process(loop, True),
    "time": lambda loop, _: loop.time(),
}


def test_every_name_of_the_abstract_loop_is_called_here() -> None:
    assert set(names_of(LOOP)) - set(CALLS) == set()


@pytest.mark.parametrize("name", names_of(LOOP))
def test_the_loop_has_the_method_and_does_its_work(name: str, tmp_path: Path) -> None:
    with support.running() as loop:
        assert is_own(type(loop), LOOP, name)
        called = CALLS[name](loop, tmp_path)
        if inspect.isawaitable(called) and not isinstance(called, asyncio.Future):
            loop.run_until_complete(eventually(called))


def is_own(concrete: type, abstract: type, name: str) -> bool:
    """Is the method there, and not one that only raises `NotImplementedError`?"""
    inherited = getattr(abstract, name)
    left_out = "NotImplementedError" in inherited.__code__.co_names
    return getattr(concrete, name) is not inherited or not left_out


# ---- transports and servers


@asynccontextmanager
async def connected(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """A TCP transport."""
    with peers.listener() as listening:
        transport, protocol = await loop.create_connection(Everything, *listening.getsockname())
        with closing(listening.accept()[0]):
            yield transport
            transport.abort()
            await protocol.lost


@asynccontextmanager
async def connected_unix(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """A transport over a Unix socket."""
    ours, theirs = peers.unix_pair()
    with theirs:
        transport, protocol = await loop.create_unix_connection(Everything, sock=ours)
        yield transport
        transport.abort()
        await protocol.lost


@asynccontextmanager
async def datagram(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """A UDP transport."""
    transport, protocol = await loop.create_datagram_endpoint(Everything, local_addr=("127.0.0.1", 0))
    yield transport
    transport.abort()
    await protocol.lost


@asynccontextmanager
async def reading_pipe(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """The transport of a pipe's reading end."""
    reading, writing = os.pipe()
    with io.FileIO(writing, "wb"):
        transport, protocol = await loop.connect_read_pipe(Everything, io.FileIO(reading, "rb"))
        yield transport
        transport.close()
        await protocol.lost


@asynccontextmanager
async def writing_pipe(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """The transport of a pipe's writing end."""
    reading, writing = os.pipe()
    with io.FileIO(reading, "rb"):
        transport, protocol = await loop.connect_write_pipe(Everything, io.FileIO(writing, "wb"))
        yield transport
        transport.abort()
        await protocol.lost


@asynccontextmanager
async def process(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """The transport of a process that waits for the end of its input."""
    transport, protocol = await loop.subprocess_exec(Everything, "cat")
    yield transport
    transport.close()
    await protocol.lost


@asynccontextmanager
async def server(loop: asyncio.AbstractEventLoop) -> AsyncIterator[Any]:
    """A listening server."""
    made = await loop.create_server(Everything, "127.0.0.1", 0, start_serving=False)
    yield made
    made.close()


MAKERS = {
    connected: (asyncio.Transport, asyncio.ReadTransport, asyncio.WriteTransport, asyncio.BaseTransport),
    connected_unix: (asyncio.Transport, asyncio.ReadTransport, asyncio.WriteTransport, asyncio.BaseTransport),
    reading_pipe: (asyncio.ReadTransport, asyncio.BaseTransport),
    writing_pipe: (asyncio.WriteTransport, asyncio.BaseTransport),
    datagram: (asyncio.DatagramTransport, asyncio.BaseTransport),
    process: (asyncio.SubprocessTransport, asyncio.BaseTransport),
    server: (asyncio.AbstractServer,),
}


async def serve_forever(made: Any) -> None:
    task = asyncio.ensure_future(made.serve_forever())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def close_and_wait(made: Any) -> None:
    made.close()
    await made.wait_closed()


METHODS: dict[str, Callable[[Any], Any]] = {
    "abort": lambda it: it.abort(),
    "abort_clients": lambda it: it.abort_clients(),
    "can_write_eof": lambda it: it.can_write_eof(),
    "close": lambda it: it.close(),
    "close_clients": lambda it: it.close_clients(),
    "get_extra_info": lambda it: it.get_extra_info("socket"),
    "get_loop": lambda it: it.get_loop(),
    "get_pid": lambda it: it.get_pid(),
    "get_pipe_transport": lambda it: it.get_pipe_transport(1),
    "get_protocol": lambda it: it.get_protocol(),
    "get_returncode": lambda it: it.get_returncode(),
    "get_write_buffer_limits": lambda it: it.get_write_buffer_limits(),
    "get_write_buffer_size": lambda it: it.get_write_buffer_size(),
    "is_closing": lambda it: it.is_closing(),
    "is_reading": lambda it: it.is_reading(),
    "is_serving": lambda it: it.is_serving(),
    "kill": lambda it: it.kill(),
    "pause_reading": lambda it: it.pause_reading(),
    "resume_reading": lambda it: (it.pause_reading(), it.resume_reading()),
    "send_signal": lambda it: it.send_signal(signal.SIGCONT),
    "sendto": lambda it: it.sendto(b"data", it.get_extra_info("sockname")),
    "serve_forever": serve_forever,
    "set_protocol": lambda it: it.set_protocol(it.get_protocol()),
    "set_write_buffer_limits": lambda it: it.set_write_buffer_limits(100, 10),
    "start_serving": lambda it: it.start_serving(),
    "terminate": lambda it: it.terminate(),
    "wait_closed": close_and_wait,
    "write": lambda it: it.write(b"data"),
    "write_eof": lambda it: it.write_eof(),
    "writelines": lambda it: it.writelines([b"da", b"ta"]),
}


def test_every_name_of_the_abstract_transports_and_servers_is_called_here() -> None:
    abstracts = {abstract for kinds in MAKERS.values() for abstract in kinds}
    assert {name for abstract in abstracts for name in names_of(abstract)} - set(METHODS) == set()


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_what_the_loop_makes_has_every_method_and_does_its_work(maker: Any) -> None:
    async def call(name: str, abstracts: list[type]) -> None:
        async with AsyncExitStack() as stack:
            made = await stack.enter_async_context(maker(asyncio.get_running_loop()))
            assert all(isinstance(made, abstract) for abstract in MAKERS[maker])
            assert all(is_own(type(made), abstract, name) for abstract in abstracts), f"{name} is the abstract one"
            called = METHODS[name](made)
            if inspect.isawaitable(called):
                await called

    with support.running() as loop:
        names = sorted({name for abstract in MAKERS[maker] for name in names_of(abstract)})
        for name in names:
            abstracts = [abstract for abstract in MAKERS[maker] if hasattr(abstract, name)]
            loop.run_until_complete(eventually(call(name, abstracts)))
