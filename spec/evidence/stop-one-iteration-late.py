"""callbacks.stop.current-batch: stop() lets the callbacks of the iteration run, and none that they scheduled.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
seen = []


def stopping():
    loop.call_soon(seen.append, "scheduled by the callback that stopped the loop")
    loop.stop()


loop.call_soon(stopping)
loop.call_soon(seen.append, "behind it in the same iteration")
loop.run_forever()
print("called:", seen)
ok = seen == ["behind it in the same iteration"]
print("conforms" if ok else "deviates")
sys.exit(not ok)
