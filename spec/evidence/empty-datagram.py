"""udp.send.empty: an empty datagram is a datagram, and is sent.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(1)
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=peer.getsockname())
        transport.sendto(b"")
        transport.sendto(b"second")
        await asyncio.sleep(0.1)
        received = [peer.recv(100)]
        if received == [b""]:
            received.append(peer.recv(100))
        transport.close()
        await asyncio.sleep(0)
        return received


received = loop.run_until_complete(main())
print("received:", received)
ok = received == [b"", b"second"]
print("conforms" if ok else "deviates")
sys.exit(not ok)
