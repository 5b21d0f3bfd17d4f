"""pipes.close.reader-sees-end: when a writing transport has closed, its pipe is closed, and the reader sees the end.

Not kept by
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import os
import select
import sys

module, _, factory = (sys.argv[1:] or ["rsloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
reading, writing = os.pipe()
pipe = os.fdopen(writing, "wb")


async def main():
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, pipe)
    transport.write(b"all")
    transport.close()
    await asyncio.sleep(0.2)


loop.run_until_complete(main())
received = os.read(reading, 100)
ended = bool(select.select([reading], [], [], 0.2)[0])
print("the reader got", received, "and", "the end" if ended else "waits for more")
ok = received == b"all" and ended
print("conforms" if ok else "deviates")
sys.exit(not ok)
