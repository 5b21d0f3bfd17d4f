"""callbacks.stop.once: several calls of stop() in one run are one; the next run is not stopped by them."""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["loopmini:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
loop.call_soon(loop.stop)
loop.call_soon(loop.stop)
loop.stop()
loop.run_forever()
ok = False
try:
    ok = loop.run_until_complete(asyncio.sleep(0.01, True))
    print("the next run came to its end")
except RuntimeError as error:
    print(f"the next run: {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
