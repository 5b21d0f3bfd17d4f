"""tcp.server.factory-raises: an exception of the protocol factory is reported; the server goes on.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13: a Rust panic ends the process
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13: it leaves run_forever()
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13: it leaves run_forever()
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
reported = []


def factory():
    raise RuntimeError("in the factory")


async def main():
    server = await loop.create_server(factory, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        await asyncio.sleep(0.2)
        client.settimeout(1)
        try:
            end = client.recv(1)
        except OSError as error:
            end = error
    server.close()
    return end


loop.set_exception_handler(lambda *context: reported.append(context[-1].get("exception")))
end = loop.run_until_complete(main())
print("the client saw", repr(end), "- reported:", reported)
ok = end == b"" or isinstance(end, ConnectionError)
print("conforms" if ok else "deviates")
sys.exit(not ok)
