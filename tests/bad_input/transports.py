"""Transports misused, and protocols that raise or give what they may not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

from spec._kit import peers
from tests.bad_input import Loop, attempt, case, outcome, run

# ---- protocols


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
    # CPython's transport, half made, has its descriptor's number for as long as it is there.
    gc.collect()


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
