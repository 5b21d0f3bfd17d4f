"""udp.send.types: of a memoryview all bytes are sent, also where its items are wider.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
"""

import array
import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(1)
        address = ("127.0.0.1", 0)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=address)
        transport.sendto(memoryview(array.array("I", [0x01020304, 0x05060708])), peer.getsockname())
        await asyncio.sleep(0.1)
        received = peer.recv(100)
        transport.close()
        await asyncio.sleep(0)
        return received


ok = False
try:
    received = loop.run_until_complete(main())
    print("received", received, "of 8 bytes")
    ok = len(received) == 8
except (TimeoutError, TypeError, OverflowError) as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
