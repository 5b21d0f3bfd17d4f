"""tcp.server.serve-forever-close: close() of a server ends its serve_forever(), by CancelledError.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    serving = loop.create_task(server.serve_forever())
    await asyncio.sleep(0.1)
    server.close()
    done, _ = await asyncio.wait([serving], timeout=1)
    serving.cancel()
    return bool(done)


ok = loop.run_until_complete(main())
print("serve_forever() ended a second after close():", ok)
print("conforms" if ok else "deviates")
sys.exit(not ok)
