"""tcp.writelines.other-types: writelines() of what is not all bytes raises TypeError and sends nothing.

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


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    raised = False
    try:
        transport.writelines([b"sent?", 1])
    except TypeError:
        raised = True
    transport.write(b"after")
    await asyncio.sleep(0.1)
    received = theirs.recv(100)
    transport.abort()
    await asyncio.sleep(0)
    return raised, received


result = loop.run_until_complete(main())
print("raised TypeError, received:", result)
ok = result == (True, b"after")
print("conforms" if ok else "deviates")
sys.exit(not ok)
