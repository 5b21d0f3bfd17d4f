"""udp.fairness.timers: timers run while datagrams arrive without end.

Not kept by
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import os
import socket
import sys
import threading
import time

module, _, factory = (sys.argv[1:] or ["rsloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


class Asking(asyncio.DatagramProtocol):
    """Each datagram brings the next one."""

    def connection_made(self, transport):
        self.own = transport.get_extra_info("sockname")
        for _ in range(2):
            peer.sendto(b"x", self.own)

    def datagram_received(self, data, addr):
        peer.sendto(data, self.own)


def give_up():
    print("no timer has run for 3 s", flush=True)
    print("deviates", flush=True)
    os._exit(1)


watch = threading.Timer(3, give_up)
watch.daemon = True


async def main():
    watch.start()
    start = time.monotonic()
    transport, _ = await loop.create_datagram_endpoint(Asking, local_addr=("127.0.0.1", 0))
    await asyncio.sleep(0.2)
    transport.abort()
    return time.monotonic() - start


seconds = loop.run_until_complete(main())
watch.cancel()
print(f"a timer of 0.2 s has run after {seconds:.1f} s")
print("conforms")
