"""tcp.close.flushes-before-lost: after close() and connection_lost() the peer sees the end of the stream.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
lost = []


class Closing(asyncio.Protocol):
    def connection_lost(self, exc):
        lost.append(exc)


async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(Closing, *listener.getsockname())
        peer, _ = listener.accept()
    transport.write(b"the end")
    await asyncio.sleep(0.1)
    transport.close()
    await asyncio.sleep(0.2)
    peer.settimeout(1)
    received = [peer.recv(100)]
    try:
        received.append(peer.recv(100))
    except TimeoutError:
        received.append("nothing for a second")
    return received


received = loop.run_until_complete(main())
print("connection_lost() was called:", bool(lost), "- the peer received:", received)
ok = received == [b"the end", b""]
print("conforms" if ok else "deviates")
sys.exit(not ok)
