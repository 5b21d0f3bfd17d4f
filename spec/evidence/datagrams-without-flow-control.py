"""udp.flow.buffer-size: get_write_buffer_size() of a datagram transport tells what is queued.

Not kept by
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["loopmini:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    try:
        return transport.get_write_buffer_size()
    finally:
        transport.abort()
        await asyncio.sleep(0)


ok = False
try:
    size = loop.run_until_complete(main())
    print("queued:", size)
    ok = size == 0
except AttributeError as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
