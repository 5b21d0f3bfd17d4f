"""tcp.write.once-across-a-fork: what was written before a fork is sent once, whatever the child does with its copy.

Not kept by
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import os
import socket
import sys

module, _, factory = (sys.argv[1:] or ["zuvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    forked = loop.create_future()

    def fork():
        transport.write(b"once ")
        if (child := os.fork()) == 0:
            transport.close()
            loop.call_later(0.1, os._exit, 0)
            return
        os.waitpid(child, 0)
        transport.close()
        forked.set_result(None)

    loop.call_soon(fork)
    await forked
    await asyncio.sleep(0.1)
    received = []
    while data := theirs.recv(100):
        received.append(data)
    return b"".join(received)


received = loop.run_until_complete(main())
print("received:", received)
ok = received == b"once "
print("conforms" if ok else "deviates")
sys.exit(not ok)
