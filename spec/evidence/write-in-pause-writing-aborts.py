"""tcp.flow.write-in-resume: write() from within pause_writing() is sent behind what is queued.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


class Writing(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.transport.write(b"from within pause_writing()")


async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(Writing, *listener.getsockname())
        peer, _ = listener.accept()
    transport.write(b"x" * 20_000_000)
    await asyncio.sleep(0.1)
    size = transport.get_write_buffer_size()
    transport.abort()
    peer.close()
    await asyncio.sleep(0)
    return size


size = loop.run_until_complete(main())  # else a Rust panic ends the process
print("buffered:", size)
ok = size > 0
print("conforms" if ok else "deviates")
sys.exit(not ok)
