"""tcp.flow.pause-inline: pause_writing() is called before the write() returns that goes over the limit.

Not kept by
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["zuvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
calls = []


class Pausing(asyncio.Protocol):
    def pause_writing(self):
        calls.append("pause_writing")


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(Pausing, sock=ours)
    transport.write(bytes(8 << 20))
    inline = list(calls)
    await asyncio.sleep(0.05)
    later = list(calls)
    transport.abort()
    await asyncio.sleep(0)
    theirs.close()
    return inline, later


inline, later = loop.run_until_complete(main())
print("when write() returned:", inline, "- later:", later)
ok = inline == ["pause_writing"]
print("conforms" if ok else "deviates")
sys.exit(not ok)
