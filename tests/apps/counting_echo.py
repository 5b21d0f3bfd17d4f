"""An echo server that counts what is alive in its process: told `report`, it collects garbage and prints JSON.

It answers by as many writes as WRITES in the environment says, one by default.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import threading
from typing import ClassVar

from tests import support

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
    """Print what is alive: objects by type, as the collector knows them (weak references would hold memory)."""
    gc.collect()
    alive = {kind.__name__: 0 for kind in Echo.kinds}
    for thing in gc.get_objects():
        if type(thing) in Echo.kinds:
            alive[type(thing).__name__] += 1
    if sys.platform.startswith("linux"):
        # What is free must not count as used because the allocator keeps it for later.
        ctypes.CDLL(None).malloc_trim(0)
    facts = {
        "made": Echo.made,
        "lost": Echo.lost,
        "alive": alive,
        "rss": support.rss(),
        "fds": len(support.fds()),
    }
    print(json.dumps(facts), flush=True)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    print(f"{type(loop).__name__} serves on port {server.sockets[0].getsockname()[1]}.", flush=True)
    ended = asyncio.Event()
    Echo.kinds |= {type(loop.call_soon(int)), type(loop.call_later(0, int))}

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "report":
                loop.call_soon_threadsafe(report)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())
