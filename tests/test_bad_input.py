"""Bad input gets the exception that stock asyncio raises, at the same moment, and the loop goes on.

Each case is a small program. It runs on stock asyncio and on the loop under test, in a child process each, and must do
the same on both: the steps it passed, the exception's type, its errno and its message, what reached the exception
handler. Then the loop must still carry an echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
import socket
import ssl
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spec._kit import peers
from tests import support
from tests.test_threads import echo_once

pytestmark = pytest.mark.timeout(60)

Loop = asyncio.AbstractEventLoop
Case = Callable[[Loop, Callable[[object], None]], Any]
CASES: dict[str, tuple[Case, bool]] = {}


def case(function: Case | None = None, *, says_the_same: bool = True) -> Any:
    """Register a program; it gets a loop that does not run and `step`, which notes how far it came.

    Without `says_the_same` messages may differ (they name internals); types, errnos and moments may not.
    """

    def register(function: Case) -> Case:
        CASES[function.__name__.replace("_", " ")] = function, says_the_same
        return function

    return register(function) if function else register


def run(loop: Loop, coro: Any) -> Any:
    return loop.run_until_complete(asyncio.wait_for(coro, 10))


def attempt(step: Callable[[object], None], function: Callable[..., object], *args: Any, **named: Any) -> None:
    """Call, and note what came of it, so that one program can try several things."""
    try:
        result = function(*args, **named)
    except Exception as error:
        step(outcome(error))
    else:
        if asyncio.iscoroutine(result) or hasattr(result, "close"):
            result.close()
        step("went well")


def outcome(error: BaseException) -> tuple[str, int | None, str]:
    """An exception's type, errno and message, without what differs from run to run."""
    text = re.sub(r"0x[0-9a-f]+|\d{2,}|fd=\d+", "N", str(error))
    text = re.sub(r"call_(at|later)\(\)", "call_later()", text)  # stock's call_later names call_at
    text = re.sub(r"_UnixSelectorEventLoop|TokioLoop|_SelectorSocketTransport|StreamTransport", "X", text)
    return type(error).__name__, getattr(error, "errno", None), text


# ---- wrong types


@case
def callbacks_that_cannot_be_called(loop, step):
    loop.call_soon(None)
    loop.call_soon(5, 1)
    loop.call_later(0, "text")
    loop.call_soon_threadsafe(object())
    loop.call_later(0.01, loop.stop)
    step("scheduled")
    loop.run_forever()


@case
def callbacks_that_cannot_be_called_in_debug_mode(loop, step):
    loop.set_debug(True)
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, lambda callback: loop.call_later(1, callback)):
        attempt(step, schedule, None)


@case
def coroutines_as_callbacks_in_debug_mode(loop, step):
    async def main() -> None: ...

    loop.set_debug(True)
    coro = main()
    attempt(step, loop.call_soon, main)
    attempt(step, loop.call_soon, coro)
    attempt(step, loop.call_later, 1, main)
    attempt(step, loop.run_in_executor, None, main)
    coro.close()


@case(says_the_same=False)
def missing_and_unknown_arguments(loop, step):
    attempt(step, loop.call_soon)
    attempt(step, loop.call_soon_threadsafe)
    attempt(step, loop.call_later)
    attempt(step, loop.call_later, 1)
    attempt(step, loop.call_at, 1)
    attempt(step, loop.call_soon, print, nonsense=1)
    attempt(step, loop.call_later, 1, print, nonsense=1)
    attempt(step, loop.add_reader, 0)
    attempt(step, loop.remove_reader)
    attempt(step, loop.time, 1)


@case(says_the_same=False)
def delays_that_are_no_numbers(loop, step):
    attempt(step, loop.call_later, None, print)
    attempt(step, loop.call_later, "1", print)
    attempt(step, loop.call_at, None, print)
    attempt(step, loop.call_later, [], print)


@case(says_the_same=False)
def contexts_that_are_none(loop, step):
    loop.set_exception_handler(lambda _loop, context: step(type(context["exception"]).__name__))
    attempt(step, loop.call_soon, print, context=None)
    loop.call_soon(loop.stop)
    loop.run_forever()


@case
def what_is_no_awaitable(loop, step):
    attempt(step, loop.run_until_complete, None)
    attempt(step, loop.run_until_complete, 5)
    attempt(step, loop.run_until_complete, print)


@case(says_the_same=False)
def what_is_no_coroutine_as_a_task(loop, step):
    attempt(step, loop.create_task, None)
    attempt(step, loop.create_task, 5)


@case
def exception_handlers_and_task_factories_that_cannot_be_called(loop, step):
    attempt(step, loop.set_exception_handler, 5)
    attempt(step, loop.set_task_factory, "text")
    attempt(step, loop.set_default_executor, object())


@case
def file_objects_that_are_none(loop, step):
    for method in (loop.add_reader, loop.add_writer):
        attempt(step, method, None, print)
        attempt(step, method, "text", print)
        attempt(step, method, 1.5, print)
        attempt(step, method, object(), print)
    for method in (loop.remove_reader, loop.remove_writer):
        attempt(step, method, None)
        attempt(step, method, "text")
        attempt(step, method, object())


@case
def file_descriptors_that_are_not(loop, step):
    for method in (loop.add_reader, loop.add_writer):
        attempt(step, method, -1, print)
        attempt(step, method, 1_000_000, print)
    for method in (loop.remove_reader, loop.remove_writer):
        attempt(step, method, -1)
        step(method(1_000_000))


@case(says_the_same=False)
def file_descriptors_beyond_an_int(loop, step):
    attempt(step, loop.add_reader, 1 << 31, print)
    attempt(step, loop.add_reader, 1 << 70, print)


@case
def a_closed_file(loop, step):
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    attempt(step, loop.add_reader, ours, print)
    attempt(step, loop.add_writer, ours, print)
    attempt(step, loop.remove_reader, ours)


@case
def a_regular_file_as_a_reader(loop, step):
    with tempfile.TemporaryFile() as file:
        attempt(step, loop.add_reader, file, print)
        attempt(step, loop.add_writer, file, print)
        step(loop.remove_reader(file))


@case
def callbacks_of_readers_that_cannot_be_called(loop, step):
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def handler(_loop, context):
            step(outcome(context["exception"]))
            loop.remove_reader(ours)
            loop.stop()

        loop.set_exception_handler(handler)
        theirs.send(b"x")
        attempt(step, loop.add_reader, ours, None)
        attempt(step, loop.run_forever)


@case
def a_transports_file_as_a_reader(loop, step):
    ours, theirs = peers.pair()
    with theirs:
        transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
        fd = transport.get_extra_info("socket").fileno()
        for method in (loop.add_reader, loop.add_writer):
            attempt(lambda said: step(said[0] if isinstance(said, tuple) else said), method, fd, print)
        for method in (loop.remove_reader, loop.remove_writer):
            attempt(lambda said: step(said[0] if isinstance(said, tuple) else said), method, fd)
        transport.close()


# ---- a closed loop


@case
def everything_on_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    sock.setblocking(False)
    loop.close()
    loop.close()
    step("closed twice")
    attempt(step, loop.run_forever)
    coro = asyncio.sleep(0)
    attempt(step, loop.run_until_complete, coro)
    coro.close()
    attempt(step, loop.call_soon, print)
    attempt(step, loop.call_later, 1, print)
    attempt(step, loop.call_at, 1, print)
    attempt(step, loop.call_soon_threadsafe, print)
    attempt(step, loop.add_reader, sock, print)
    attempt(step, loop.add_writer, sock, print)
    attempt(step, loop.run_in_executor, None, print)
    coro = asyncio.sleep(0)
    attempt(step, loop.create_task, coro)
    coro.close()
    attempt(step, loop.time)
    attempt(step, loop.is_running)
    attempt(step, loop.get_debug)
    attempt(step, loop.stop)
    attempt(step, loop.create_future)
    attempt(step, repr, loop)
    sock.close()
    other.close()


@case
def removing_watchers_of_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    with sock, other:
        loop.add_reader(sock, print)
        loop.close()
        attempt(step, loop.remove_reader, sock)
        attempt(step, loop.remove_writer, sock)


@case
def sock_operations_on_a_closed_loop(loop, step):
    sock, other = socket.socketpair()
    sock.setblocking(False)
    runner = asyncio.new_event_loop()

    async def each() -> None:
        for make in (
            lambda: loop.sock_recv(sock, 1),
            lambda: loop.sock_recv_into(sock, bytearray(1)),
            lambda: loop.sock_recvfrom(sock, 1),
            lambda: loop.sock_sendall(sock, b"x" * 10_000_000),
        ):
            try:
                await make()
            except Exception as error:
                step(type(error).__name__)

    loop.close()
    with sock, other:
        runner.run_until_complete(each())
    runner.close()


@case
def a_transport_used_after_its_loop_is_closed(loop, step):
    ours, theirs = peers.pair()
    with theirs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
        loop.close()
        attempt(step, transport.is_closing)
        attempt(step, transport.get_write_buffer_size)
        attempt(step, transport.write, b"x")
        attempt(step, transport.write_eof)
        attempt(step, repr, None)
        attempt(step, transport.close)


# ---- runs


@case
def closing_a_running_loop(loop, step):
    async def main():
        attempt(step, loop.close)

    run(loop, main())


@case
def a_loop_stopped_before_its_future_is_done(loop, step):
    loop.call_soon(loop.stop)
    attempt(step, loop.run_until_complete, loop.create_future())


@case
def the_future_of_another_loop(loop, step):
    other = asyncio.new_event_loop()
    future = other.create_future()
    attempt(step, loop.run_until_complete, future)

    async def main():
        await future

    task = loop.create_task(main())
    attempt(step, loop.run_until_complete, task)
    other.close()


@case
def the_wrong_thread_in_debug_mode(loop, step):
    loop.set_debug(True)

    async def main():
        for method in (loop.call_soon, lambda callback: loop.call_later(1, callback), loop.call_soon_threadsafe):
            thread = threading.Thread(target=attempt, args=(step, method, int))
            thread.start()
            thread.join()

    run(loop, main())


@case
def a_default_executor_that_is_shut_down(loop, step):
    run(loop, loop.run_in_executor(None, int))
    run(loop, loop.shutdown_default_executor())
    attempt(step, loop.run_in_executor, None, int)


# ---- callbacks that raise


@case
def a_callback_that_raises(loop, step):
    def bad():
        raise KeyError("bad")

    loop.call_soon(bad)
    loop.call_soon(step, "the next one runs")
    loop.call_later(0.001, bad)
    loop.call_soon_threadsafe(bad)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@case
def a_reader_that_raises_is_called_again(loop, step):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        calls = []

        def bad():
            calls.append(1)
            if len(calls) == 3:
                loop.call_soon(loop.remove_reader, ours)
                loop.call_soon(loop.stop)
            raise ValueError("bad")

        theirs.send(b"x")
        loop.add_reader(ours, bad)
        loop.run_forever()
        step(len(calls) >= 3)


@case
def an_exception_handler_that_raises(loop, step):
    def handler(_loop, _context):
        step("handler")
        raise RuntimeError("worse")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(step, "next")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()


@case
def system_exit_in_a_callback(loop, step):
    def leave():
        raise SystemExit(3)

    loop.call_soon(leave)
    loop.call_soon(step, "later")
    try:
        loop.run_forever()
    except SystemExit as error:
        step(error.code)
    loop.call_soon(loop.stop)
    loop.run_forever()


class Raises(asyncio.Protocol):
    """Raises in one method."""

    def __init__(self, where: str, step: Callable[[object], None], ended: asyncio.Future[None]) -> None:
        self.where, self.step, self.ended = where, step, ended

    def maybe(self, method: str) -> None:
        self.step(method)
        if method == self.where:
            raise ZeroDivisionError(method)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.maybe("connection_made")

    def data_received(self, data: bytes) -> None:
        self.maybe("data_received")

    def eof_received(self) -> None:
        self.maybe("eof_received")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)
        self.step(("lost", type(exc).__name__))
        self.maybe("connection_lost")


@case
def protocols_that_raise(loop, step):
    for where in ("connection_made", "data_received", "eof_received", "connection_lost"):
        ours, theirs = peers.pair()
        theirs.send(b"x")
        theirs.shutdown(socket.SHUT_WR)
        step(where)

        async def main(where=where, ours=ours):
            ended = loop.create_future()
            await loop.create_connection(lambda: Raises(where, step, ended), sock=ours)
            await ended

        attempt(step, run, loop, main())
        theirs.close()


@case
def protocol_factories_that_fail(loop, step):
    ours, theirs = peers.pair()
    with ours, theirs:
        attempt(step, run, loop, loop.create_connection(lambda: 1 / 0, sock=ours))
        attempt(step, run, loop, loop.create_connection(None, sock=ours))


@case
def a_protocol_factory_of_a_server_that_fails(loop, step):
    async def main():
        failed = loop.create_future()
        loop.set_debug(True)  # else stock asyncio says nothing
        server = await loop.create_server(lambda: 1 / 0, "127.0.0.1", 0)
        loop.set_exception_handler(lambda _loop, context: (step(context["message"]), failed.set_result(None)))
        with socket.create_connection(server.sockets[0].getsockname(), 10):
            await failed
        loop.set_exception_handler(None)
        server.close()

    run(loop, main())


# ---- sockets


@case
def blocking_sockets(loop, step):
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    with ours, theirs, listening:
        for debug in (True, False):
            loop.set_debug(debug)
            step(debug)
            if debug:
                attempt(step, run, loop, loop.sock_recv(ours, 1))
                attempt(step, run, loop, loop.sock_recv_into(ours, bytearray(1)))
                attempt(step, run, loop, loop.sock_recvfrom(ours, 1))
                attempt(step, run, loop, loop.sock_recvfrom_into(ours, bytearray(1)))
                attempt(step, run, loop, loop.sock_sendall(ours, b"x"))
                attempt(step, run, loop, loop.sock_sendto(ours, b"x", ("127.0.0.1", 1)))
                attempt(step, run, loop, loop.sock_accept(listening))
                attempt(step, run, loop, loop.sock_connect(ours, ("127.0.0.1", 1)))


@case
def closed_sockets(loop, step):
    sock = socket.socket()
    sock.setblocking(False)
    sock.close()
    attempt(step, run, loop, loop.sock_recv(sock, 1))
    attempt(step, run, loop, loop.sock_recv_into(sock, bytearray(1)))
    attempt(step, run, loop, loop.sock_recvfrom(sock, 1))
    attempt(step, run, loop, loop.sock_recvfrom_into(sock, bytearray(1)))
    attempt(step, run, loop, loop.sock_sendall(sock, b"x"))
    attempt(step, run, loop, loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)))
    attempt(step, run, loop, loop.sock_accept(sock))
    attempt(step, run, loop, loop.sock_connect(sock, ("127.0.0.1", 1)))


@case
def sockets_that_are_not_connected_or_do_not_listen(loop, step):
    with socket.socket() as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.sock_recv(sock, 1))
        attempt(step, run, loop, loop.sock_sendall(sock, b"x"))
        attempt(step, run, loop, loop.sock_accept(sock))


@case
def ssl_sockets(loop, step):
    context = ssl.create_default_context()
    context.check_hostname = False
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, context.wrap_socket(ours, do_handshake_on_connect=False) as sock:
        attempt(step, run, loop, loop.sock_recv(sock, 1))
        attempt(step, run, loop, loop.sock_recv_into(sock, bytearray(1)))
        attempt(step, run, loop, loop.sock_recvfrom(sock, 1))
        attempt(step, run, loop, loop.sock_recvfrom_into(sock, bytearray(1)))
        attempt(step, run, loop, loop.sock_sendall(sock, b"x"))
        attempt(step, run, loop, loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)))
        attempt(step, run, loop, loop.sock_accept(sock))
        attempt(step, run, loop, loop.sock_connect(sock, ("127.0.0.1", 1)))
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))


@case(says_the_same=False)
def buffers_and_sizes_of_the_wrong_type(loop, step):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(b"data")
        attempt(step, run, loop, loop.sock_recv(ours, "1"))
        attempt(step, run, loop, loop.sock_recv(ours, -1))
        attempt(step, run, loop, loop.sock_recv(ours, None))
        attempt(step, run, loop, loop.sock_recv_into(ours, b"immutable"))
        attempt(step, run, loop, loop.sock_recv_into(ours, None))
        attempt(step, run, loop, loop.sock_recv_into(ours, "text"))
        attempt(step, run, loop, loop.sock_recvfrom_into(ours, bytearray(1), "1"))
        attempt(step, run, loop, loop.sock_sendall(ours, "text"))
        attempt(step, run, loop, loop.sock_sendall(ours, None))
        attempt(step, run, loop, loop.sock_sendall(ours, 5))
        step(run(loop, loop.sock_recv(ours, 100)))


@case(says_the_same=False)
def what_is_no_socket(loop, step):
    for make in (
        lambda: loop.sock_recv(None, 1),
        lambda: loop.sock_recv(5, 1),
        lambda: loop.sock_recv_into("x", bytearray(1)),
        lambda: loop.sock_sendall(None, b"x"),
        lambda: loop.sock_accept(None),
        lambda: loop.sock_connect(None, ("127.0.0.1", 1)),
        lambda: loop.create_connection(asyncio.Protocol, sock=5),
        lambda: loop.create_server(asyncio.Protocol, sock=5),
    ):
        attempt(step, lambda make=make: run(loop, make()))


@case
def sockets_of_the_wrong_kind(loop, step):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))


@case
def a_closed_socket_for_a_connection(loop, step):
    for _ in range(2):
        sock = socket.socket()
        sock.close()
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, sock=sock))
        attempt(step, run, loop, loop.connect_accepted_socket(asyncio.Protocol, sock))
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, sock=sock))


# ---- addresses and ports


@case
def a_port_that_refuses(loop, step):
    port = peers.closed_port()
    attempt(step, run, loop, loop.create_connection(asyncio.Protocol, "127.0.0.1", port))
    attempt(step, run, loop, asyncio.open_connection("127.0.0.1", port))
    with socket.socket() as sock:
        sock.setblocking(False)
        attempt(step, run, loop, loop.sock_connect(sock, ("127.0.0.1", port)))


@case
def a_port_in_use(loop, step):
    with peers.listener() as listening:
        port = listening.getsockname()[1]
        attempt(step, run, loop, loop.create_server(asyncio.Protocol, "127.0.0.1", port))
        attempt(step, run, loop, asyncio.start_server(print, "127.0.0.1", port))
        local = {"local_addr": ("127.0.0.1", port)}
        attempt(step, run, loop, loop.create_connection(asyncio.Protocol, "127.0.0.1", port, **local))


@case
def hosts_and_ports_that_are_none(loop, step):
    create = loop.create_connection
    attempt(step, run, loop, create(asyncio.Protocol))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 70_000))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", -1))
    attempt(step, run, loop, create(asyncio.Protocol, "256.256.256.256.", 1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", "no such service"))
    attempt(step, run, loop, create(asyncio.Protocol, 5, 1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, family=socket.AF_INET6))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, local_addr=("192.0.2.1", 0)))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, local_addr="text"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, sock=socket.socket()))


@case
def addresses_of_sock_connect_that_are_none(loop, step):
    for address in (None, "text", ("127.0.0.1",), ("127.0.0.1", "x"), ("127.0.0.1", 70_000), (5, 5), ("a" * 70, 1)):
        with socket.socket() as sock:
            sock.setblocking(False)
            attempt(step, lambda sock=sock, address=address: run(loop, loop.sock_connect(sock, address)))


@case
def servers_that_cannot_be(loop, step):
    create = loop.create_server
    attempt(step, run, loop, create(asyncio.Protocol))
    attempt(step, run, loop, create(asyncio.Protocol, "192.0.2.1", 0))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 70_000))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, ssl="text"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, ssl_handshake_timeout=1))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, backlog="x"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 0, sock=socket.socket()))


@case
def tls_arguments_that_do_not_fit(loop, step):
    create = loop.create_connection
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, server_hostname="x"))
    attempt(step, run, loop, create(asyncio.Protocol, "127.0.0.1", 1, ssl_handshake_timeout=1))
    attempt(step, run, loop, create(asyncio.Protocol, sock=socket.socket(), ssl=True))
    attempt(step, run, loop, loop.start_tls(None, None, None))
    attempt(step, run, loop, loop.start_tls(None, None, ssl.create_default_context()))


@case
def a_peer_that_speaks_no_tls(loop, step):
    ours, theirs = peers.pair()
    with theirs:
        theirs.sendall(b"this is no TLS record at all")
        context = ssl.create_default_context()
        create = loop.create_connection
        attempt(step, run, loop, create(asyncio.Protocol, sock=ours, ssl=context, server_hostname="localhost"))


# ---- transports


@contextlib.contextmanager
def connected(loop: Loop) -> Iterator[tuple[Any, socket.socket]]:
    ours, theirs = peers.pair()
    with theirs:
        transport, _ = run(loop, loop.create_connection(asyncio.Protocol, sock=ours))
        yield transport, theirs
        transport.abort()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_soon(loop.stop)
        loop.run_forever()


@case
def writes_of_the_wrong_type(loop, step):
    with connected(loop) as (transport, theirs):
        attempt(step, transport.write, "text")
        attempt(step, transport.write, None)
        attempt(step, transport.write, 5)
        attempt(step, transport.write, [1, 2])
        attempt(step, transport.write, b"right")
        attempt(step, transport.write, memoryview(b"0123456789")[::1])
        transport.close()
        loop.call_soon(loop.stop)
        loop.run_forever()
        step(peers.recv_all(theirs))


@case(says_the_same=False)
def writelines_of_the_wrong_type(loop, step):
    with connected(loop) as (transport, theirs):
        attempt(step, transport.writelines, 5)
        attempt(step, transport.writelines, ["text"])
        attempt(step, transport.writelines, [b"right ", b"after"])
        transport.close()
        loop.call_soon(loop.stop)
        loop.run_forever()
        step(peers.recv_all(theirs))


@case
def writes_after_eof_and_after_close(loop, step):
    with connected(loop) as (transport, _):
        transport.write_eof()
        attempt(step, transport.write, b"x")
        attempt(step, transport.write_eof)
        attempt(step, transport.writelines, [b"x"])
        transport.close()
        attempt(step, transport.write, b"x")
        attempt(step, transport.write_eof)
        attempt(step, transport.close)
        attempt(step, transport.abort)


@case
def write_limits_that_do_not_fit(loop, step):
    with connected(loop) as (transport, _):
        attempt(step, transport.set_write_buffer_limits, high=-1)
        attempt(step, transport.set_write_buffer_limits, high=1, low=2)
        attempt(step, transport.set_write_buffer_limits, low=-1)
        attempt(step, transport.set_write_buffer_limits, 0)
        step(transport.get_write_buffer_limits())
        attempt(step, transport.set_write_buffer_limits)
        step(transport.get_write_buffer_limits())


@case
def pausing_twice_resuming_twice_and_after_close(loop, step):
    with connected(loop) as (transport, _):
        attempt(step, transport.resume_reading)
        attempt(step, transport.pause_reading)
        attempt(step, transport.pause_reading)
        step(transport.is_reading())
        attempt(step, transport.resume_reading)
        step(transport.is_reading())
        transport.close()
        attempt(step, transport.pause_reading)
        attempt(step, transport.resume_reading)
        step(transport.is_reading())


@case(says_the_same=False)
def protocols_that_lack_methods(loop, step):
    class Nothing:
        pass

    ours, theirs = peers.pair()
    with theirs:
        loop.set_exception_handler(lambda _loop, context: step(type(context.get("exception")).__name__))
        theirs.send(b"x")
        attempt(step, run, loop, loop.create_connection(Nothing, sock=ours))
        loop.call_later(0.02, loop.stop)
        loop.run_forever()


class Buffered(asyncio.BufferedProtocol):
    """Gives what it is told for a buffer."""

    def __init__(self, buffer: object, step: Callable[[object], None], ended: asyncio.Future[None]) -> None:
        self.buffer, self.step, self.ended = buffer, step, ended

    def get_buffer(self, hint: int) -> Any:
        if isinstance(self.buffer, Exception):
            raise self.buffer
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.step(("updated", count))

    def connection_lost(self, exc: Exception | None) -> None:
        self.step(("lost", type(exc).__name__))
        self.ended.set_result(None)


@case(says_the_same=False)
def buffers_of_protocols_that_are_none(loop, step):
    loop.set_exception_handler(lambda _loop, context: step(type(context["exception"]).__name__))
    for buffer in (None, b"immutable", "text", bytearray(0), KeyError("no buffer")):
        ours, theirs = peers.pair()
        theirs.send(b"x")

        async def main(buffer=buffer, ours=ours):
            ended = loop.create_future()
            await loop.create_connection(lambda: Buffered(buffer, step, ended), sock=ours)
            await ended

        attempt(step, run, loop, main())
        theirs.close()


@case
def a_connection_reset_by_the_peer(loop, step):
    ours, theirs = peers.pair()

    async def main():
        ended = loop.create_future()
        transport, _ = await loop.create_connection(lambda: Raises("", step, ended), sock=ours)
        peers.reset(theirs)
        await ended
        for _ in range(7):
            transport.write(b"x")
        step(transport.is_closing())

    run(loop, main())


@case
def streams_with_bad_arguments(loop, step):
    attempt(step, asyncio.StreamReader, limit=0)

    async def main():
        with peers.serve(lambda conn: conn.sendall(b"x" * 100 + b"\n")) as addr:
            reader, writer = await asyncio.open_connection(*addr, limit=10)
            try:
                await reader.readline()
            except ValueError as error:
                step(outcome(error)[0])
            attempt(step, writer.write, "text")
            writer.close()
            await writer.wait_closed()

    run(loop, main())


# ---- the comparison


def observe(name: str, factory: Callable[[], Loop], channel: Any) -> None:
    """In a child: run a case and send what happened: its steps and end, what was reported, whether the loop goes on."""
    warnings.simplefilter("ignore")
    function, _ = CASES[name]
    steps: list[object] = []
    contexts: list[tuple[str, object]] = []

    def step(what: object) -> None:
        steps.append(what)

    def handler(_loop: Loop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = re.sub(r"(Exception in callback).*", r"\1", context["message"])  # how a callback is shown may differ
        contexts.append((message, outcome(error) if error else None))

    loop = factory()
    loop.set_exception_handler(handler)
    asyncio.set_event_loop(None)
    try:
        function(loop, step)
        end: object = "returned"
    except BaseException as error:
        end = ("raised", *outcome(error))
    goes_on: object = "closed"
    if not loop.is_closed():
        loop.set_debug(False)
        loop.set_exception_handler(None)
        try:
            goes_on = loop.run_until_complete(asyncio.wait_for(echo_once(b"still alive"), 10))
            loop.close()
        except BaseException as error:
            goes_on = outcome(error)
    channel.send((steps, end, contexts, goes_on))
    channel.close()


def seen(name: str, factory: Callable[[], Loop]) -> tuple[Any, ...]:
    """What `observe` sends from a forked child, or how the child ended instead."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            observe(name, factory, theirs)
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    theirs.close()
    got: tuple[Any, ...] = ("hung",)
    try:
        if ours.poll(25):
            got = ours.recv()
        else:
            os.kill(pid, 9)
    except EOFError:
        got = ("died",)
    _, status = os.waitpid(pid, 0)
    ours.close()
    return got if os.waitstatus_to_exitcode(status) == 0 else (*got, "status", os.waitstatus_to_exitcode(status))


def without_messages(what: Any) -> Any:
    """The same without the messages of exceptions (the third item of `outcome`)."""
    if isinstance(what, tuple) and len(what) == 3 and isinstance(what[2], str) and isinstance(what[0], str):
        return what[:2]
    if isinstance(what, (list, tuple)):
        return type(what)(without_messages(item) for item in what)
    return what


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_met_as_on_stock_asyncio(name: str) -> None:
    expected = seen(name, asyncio.SelectorEventLoop)
    got = seen(name, support.factory())
    assert "died" not in expected and "hung" not in expected, f"stock asyncio: {expected}"
    if not CASES[name][1]:
        expected, got = without_messages(expected), without_messages(got)
    assert got == expected
    assert got[3] in (b"still alive", "closed")


# ---- no panic crosses into Python


def panics() -> Callable[[Any], None]:
    if not support.OURS:
        pytest.skip("panics are of Rust's")
    import tokioloop._tokioloop as extension

    found: Callable[[Any], None] | None = getattr(extension, "panic_next_event", None)
    if found is None:
        pytest.skip("this build has no failpoints (make build has; a release has not)")
    return found


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_panic_is_one_logged_error_and_costs_one_connection(side: str) -> None:
    panics()
    done = support.python(
        """
        import asyncio, sys
        from tests import support
        from tokioloop._tokioloop import panic_next_event

        contexts, lost = [], []

        class Echo(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                made.append(self)
            def data_received(self, data):
                self.transport.write(data)
            def connection_lost(self, exc):
                lost.append((self, exc))

        class Client(asyncio.Protocol):
            def __init__(self):
                self.got, self.lost = asyncio.Queue(), asyncio.get_running_loop().create_future()
            def data_received(self, data):
                self.got.put_nowait(data)
            def connection_lost(self, exc):
                self.lost.set_result(exc)

        made = []

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: contexts.append(context))
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            addr = server.sockets[0].getsockname()
            (one, first), (two, second) = [await loop.create_connection(Client, *addr) for _ in range(2)]
            one.write(b"1")
            two.write(b"2")
            assert (await first.got.get(), await second.got.get()) == (b"1", b"2")
            hit = one if sys.argv[1] == "client" else [
                echo.transport for echo in made
                if echo.transport.get_extra_info("peername") == one.get_extra_info("sockname")
            ][0]
            panic_next_event(hit)
            one.write(b"!")
            exc = await asyncio.wait_for(first.lost, 10)
            if sys.argv[1] == "client":
                print("lost with", type(exc).__name__)
            else:
                await asyncio.sleep(0)
                print("lost with", type([exc for echo, exc in lost if echo.transport is hit][0]).__name__)
            two.write(b"3")
            assert await second.got.get() == b"3"
            two.close()
            server.close()
            print([context["message"] for context in contexts], contexts[0]["transport"] is hit)

        with asyncio.Runner(loop_factory=support.factory()) as runner:
            runner.run(main())
        print("lives")
        """,
        side,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "lost with RuntimeError", done.stdout
    assert lines[1] == "['internal error in tokioloop (a panic was caught)'] True"
    assert lines[2:] == ["lives"]
