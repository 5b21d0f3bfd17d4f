"""tcp.eof.kept-open-is-quiet: a transport that is kept open after EOF makes no further calls because of it.

Not kept by
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13: eof_received() is called in every iteration
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["veloxloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
calls = []


class KeptOpen(asyncio.Protocol):
    def eof_received(self):
        calls.append("eof_received")
        return True


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(KeptOpen, sock=ours)
    theirs.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.2)
    count = len(calls)
    transport.abort()
    await asyncio.sleep(0)
    return count


count = loop.run_until_complete(main())
print("eof_received() was called", count, "times")
ok = count == 1
print("conforms" if ok else "deviates")
sys.exit(not ok)
