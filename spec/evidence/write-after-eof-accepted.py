"""tcp.write-eof.then-write: write() after write_eof() raises RuntimeError.

Not kept by
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["loopmini:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    ours, _theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.write_eof()
    try:
        transport.write(b"too late")
    except RuntimeError as error:
        return error
    finally:
        transport.abort()
        await asyncio.sleep(0)


error = loop.run_until_complete(main())
print("write() after write_eof():", repr(error) if error else "accepted")
ok = error is not None
print("conforms" if ok else "deviates")
sys.exit(not ok)
