"""tcp.server.context-per-connection: each connection has a context of its own, a copy of that of the server.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
- zloop 0.0.1 (zloop:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
"""

import asyncio
import contextvars
import importlib
import socket
import sys
import threading

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
variable = contextvars.ContextVar("variable", default=0)
seen = []


class Seeing(asyncio.Protocol):
    def connection_made(self, transport):
        seen.append(variable.get())
        transport.close()


def factory():
    variable.set(variable.get() + 1)
    return Seeing()


def connect(address):
    for _ in range(3):
        with socket.create_connection(address) as client:
            client.recv(1)


async def main():
    server = await loop.create_server(factory, "127.0.0.1", 0)
    thread = threading.Thread(target=connect, args=[server.sockets[0].getsockname()])
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.01)
    server.close()


loop.run_until_complete(main())
print("the variable that each factory added 1 to:", seen)
ok = seen == [1, 1, 1]
print("conforms" if ok else "deviates")
sys.exit(not ok)
