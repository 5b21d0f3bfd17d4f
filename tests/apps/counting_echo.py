"""An echo server that counts what is alive in its process: told `report`, it collects garbage and prints JSON.

It answers by as many writes as WRITES in the environment says, one by default.
"""

from __future__ import annotations

import asyncio
import os
from typing import ClassVar

from tests import support
from tests.apps.counting import print_facts, serve

WRITES = int(os.environ.get("WRITES", "1"))


class Echo(asyncio.Protocol):
    """Echoes and counts."""

    made = 0
    lost = 0
    kinds: ClassVar[set[type]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        Echo.made += 1
        Echo.kinds |= {type(transport), Echo}

    def data_received(self, data: bytes) -> None:
        size = -(-len(data) // WRITES)
        for start in range(0, len(data), size):
            self.transport.write(data[start : start + size])  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        Echo.lost += 1


def report() -> None:
    """Print what is alive."""
    print_facts(Echo.kinds, made=Echo.made, lost=Echo.lost)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    Echo.kinds |= {type(loop.call_soon(int)), type(loop.call_later(0, int))}
    await serve(server, report)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())
