"""sockets.checks.coroutine: socket operations are coroutines: create_task() takes them, and nothing starts before it.

Not kept by
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["rsloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.send(b"data")
    operation = loop.sock_recv(ours, 4)
    kind, is_coroutine = type(operation), asyncio.iscoroutine(operation)
    await operation
    return kind, is_coroutine


kind, ok = loop.run_until_complete(main())
print("sock_recv() returns", kind)
print("conforms" if ok else "deviates")
sys.exit(not ok)
