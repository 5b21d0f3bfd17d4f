"""An echo server by `asyncio.Protocol`, the fastest way to serve, and two clients.

python examples/echo_protocol.py
"""

from __future__ import annotations

import asyncio
import functools

import tokioloop


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer at once: the loop sends it within this call, or keeps what the kernel does not take."""
        self.transport.write(data)

    def pause_writing(self) -> None:
        """Read no more from a client that does not read."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on once the client has read."""
        self.transport.resume_reading()


class Client(asyncio.Protocol):
    """Sends a message and finishes `answer` with what came back when all of it is there."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.received = bytearray()
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the message, and say that there will be no more."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.message)
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Collect: TCP keeps the order of bytes, not the borders of messages."""
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has answered to the end, or failed."""
        if exc is None:
            self.answer.set_result(bytes(self.received))
        else:
            self.answer.set_exception(exc)


async def main() -> None:
    """Serve on a free port, ask twice, stop."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        for message in (b"hello", b"x" * 1_000_000):
            _, client = await loop.create_connection(functools.partial(Client, message), host, port)
            answer = await client.answer
            print(f"{len(answer)} bytes came back, {'as sent' if answer == message else 'changed'}")


if __name__ == "__main__":
    tokioloop.run(main())
