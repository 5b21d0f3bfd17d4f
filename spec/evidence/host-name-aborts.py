"""udp.send.host-name: a host name in the address of sendto() is resolved, or reported; it does not end the process.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    try:
        transport.sendto(b"x", ("localhost", 9))
    except (OSError, ValueError) as error:
        print(f"raised {error!r}")
    await asyncio.sleep(0.1)
    transport.close()
    await asyncio.sleep(0)


loop.set_exception_handler(lambda *_: None)
ok = False
loop.run_until_complete(main())  # else a Rust panic ends the process
print("the process goes on")
ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
