"""callbacks.stop.once: several calls of stop() in one run are one; the next run is not stopped by them.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
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
