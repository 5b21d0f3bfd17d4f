"""What the servers that count share: they serve until their input ends, and told `report`, print facts as JSON."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests import support


def print_facts(kinds: set[type], **facts: Any) -> None:
    """Print the facts, and what is there: objects of `kinds` by type, resident memory, descriptors.

    Objects are those that the collector knows: weak references would hold memory.
    """
    gc.collect()
    alive = {kind.__name__: 0 for kind in kinds}
    for thing in gc.get_objects():
        if type(thing) in kinds:
            alive[type(thing).__name__] += 1
    if sys.platform.startswith("linux"):
        # What is free must not count as used because the allocator keeps it for later.
        ctypes.CDLL(None).malloc_trim(0)
    print(json.dumps({**facts, "alive": alive, "rss": support.rss(), "fds": len(support.fds())}), flush=True)


async def serve(server: asyncio.Server, report: Callable[[], None]) -> None:
    """Say the loop and the port, call `report` whenever told to, and close the server at the end of the input."""
    loop = asyncio.get_running_loop()
    print(f"{type(loop).__name__} serves on port {server.sockets[0].getsockname()[1]}.", flush=True)
    ended = asyncio.Event()

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "report":
                loop.call_soon_threadsafe(report)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()
    server.close()
