"""A UDP service that answers with the length of each datagram, and a client that asks again when nothing comes.

python examples/datagrams.py
"""

from __future__ import annotations

import asyncio

import tokioloop

Address = tuple[str, int]


class Lengths(asyncio.DatagramProtocol):
    """The service. It drops the first datagram, as a network may."""

    dropped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answer to whoever sent it, with the number of the question."""
        if not self.dropped:
            self.dropped = True
            print("dropped one")
            return
        number, _, text = data.partition(b" ")
        self.transport.sendto(b"%s %d" % (number, len(text)), addr)


class Client(asyncio.DatagramProtocol):
    """Knows by number which answer is to which question: one that comes late is not taken for the next."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[int]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, _addr: Address) -> None:
        """Wake who asked."""
        number, length = map(int, data.split())
        waiting = self.waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(length)

    def error_received(self, exc: Exception) -> None:
        """Such as `ConnectionRefusedError`: nobody is there."""
        print("error:", exc)

    async def ask(self, number: int, text: bytes) -> int:
        """The answer. TimeoutError where none comes, though it was asked for five times."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting[number] = answer
        try:
            for attempt in range(1, 6):
                self.transport.sendto(b"%d %s" % (number, text))
                done, _ = await asyncio.wait([answer], timeout=0.1 * 2**attempt)
                if done:
                    return answer.result()
        finally:
            del self.waiting[number]
        raise TimeoutError(f"no answer to question {number}")


async def main() -> None:
    """Serve on a free port, ask twice, stop."""
    loop = asyncio.get_running_loop()
    service, _ = await loop.create_datagram_endpoint(Lengths, local_addr=("127.0.0.1", 0))
    address = service.get_extra_info("sockname")
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=address)
    for number, text in enumerate((b"first", b"the second")):
        print(text.decode(), "has", await client.ask(number, text), "bytes")
    transport.close()
    service.close()


if __name__ == "__main__":
    tokioloop.run(main())
