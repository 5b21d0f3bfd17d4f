"""sockets.cancel.while-waiting: what arrives after a receive was cancelled is for the next one.

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import select
import socket
import sys

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def receive(sock):
    return await loop.sock_recv(sock, 100)


async def main():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    task = loop.create_task(receive(ours))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.05)
    theirs.send(b"data")
    await asyncio.sleep(0.05)
    return task.cancelled(), bool(select.select([ours], [], [], 0.2)[0])


cancelled, ok = loop.run_until_complete(main())
print("cancelled:", cancelled, "- the data", "waits for the next receive" if ok else "is gone")
print("conforms" if ok else "deviates")
sys.exit(not ok)
