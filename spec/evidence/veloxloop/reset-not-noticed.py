"""tcp.reset.connection-reset-error: a reset by the peer is told by connection_lost() with a ConnectionResetError."""

import asyncio
import importlib
import socket
import struct
import sys

module, _, factory = (sys.argv[1:] or ["veloxloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
lost = []


class Losing(asyncio.Protocol):
    def connection_lost(self, exc):
        lost.append(exc)


async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await loop.create_connection(Losing, *listener.getsockname())
        peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()  # sends a reset
    await asyncio.sleep(0.5)


loop.run_until_complete(main())
print("connection_lost() was called with", lost)
ok = len(lost) == 1 and isinstance(lost[0], ConnectionResetError)
print("conforms" if ok else "deviates")
sys.exit(not ok)
