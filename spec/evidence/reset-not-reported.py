"""tcp.reset.connection-reset-error: a reset by the peer is told by connection_lost() with a ConnectionResetError.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13: not noticed
- talyn 0.10.4 (talyn:Loop) on CPython 3.13: told as a plain end
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13: not noticed
- zloop 0.0.1 (zloop:new_event_loop) on CPython 3.13: told without its number
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14: told as a RuntimeError
"""

import asyncio
import importlib
import socket
import struct
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
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
