"""tcp.write.at-once: what is written while nothing waits to be sent is with the peer before write() returns.

Not kept by
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
"""

import asyncio
import importlib
import select
import socket
import sys

module, _, factory = (sys.argv[1:] or ["zuvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.write(b"now")
    arrived, _, _ = select.select([theirs], [], [], 0.2)
    transport.abort()
    await asyncio.sleep(0)
    return bool(arrived)


ok = loop.run_until_complete(main())
print("the peer has it", "at once" if ok else "only when the caller has yielded to the loop")
print("conforms" if ok else "deviates")
sys.exit(not ok)
