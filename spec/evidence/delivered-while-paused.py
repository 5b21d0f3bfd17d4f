"""tcp.read.nothing-while-paused: data_received() is not called between pause_reading() and resume_reading().

Not kept by
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["blazio:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
received = []


class Keeping(asyncio.Protocol):
    def data_received(self, data):
        received.append(data)


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(Keeping, sock=ours)
    await asyncio.sleep(0.05)
    transport.pause_reading()
    theirs.send(b"data")
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
