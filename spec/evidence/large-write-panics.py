"""tcp.write.whole-in-order: all of a write arrives, also where it is more than the kernel takes at once.

Not kept by
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys
import threading

module, _, factory = (sys.argv[1:] or ["uringcore:UringEventLoop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
SIZE = 1_000_000


def drain(peer, got):
    while data := peer.recv(65_536):
        got.append(len(data))


async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(asyncio.Protocol, *listener.getsockname())
        peer, _ = listener.accept()
    got = []
    thread = threading.Thread(target=drain, args=(peer, got), daemon=True)
    thread.start()
    transport.write(b"x" * SIZE)
    transport.close()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not thread.is_alive():
            break
    return sum(got)


ok = False
try:
    got = loop.run_until_complete(main())
    print("arrived:", got, "of", SIZE)
    ok = got == SIZE
except BaseException as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
