"""tcp.read.pause-in-connection-made: a protocol that pauses in connection_made() gets no data before it resumes.

Not kept by
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["loopmini:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
received = []


class Pausing(asyncio.Protocol):
    def connection_made(self, transport):
        transport.pause_reading()

    def data_received(self, data):
        received.append(data)


async def main():
    ours, theirs = socket.socketpair()
    theirs.send(b"early")
    transport, _ = await loop.create_connection(Pausing, sock=ours)
    await asyncio.sleep(0.2)
    while_paused = list(received)
    transport.abort()
    await asyncio.sleep(0)
    return while_paused


received = loop.run_until_complete(main())
print("received while reading was paused:", received)
ok = received == []
print("conforms" if ok else "deviates")
sys.exit(not ok)
