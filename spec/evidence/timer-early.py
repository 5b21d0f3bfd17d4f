"""timers.deadline.never-early: a callback is not called before its delay has passed.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
"""

import importlib
import sys
import time

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def early(delay):
    time.sleep(0.0005)  # clause-delay: what an iteration did before it asked for the timer
    called = loop.create_future()
    start = time.monotonic()
    loop.call_later(delay, lambda: called.set_result(time.monotonic() - start))
    return delay - await called


found = [loop.run_until_complete(early(delay / 10_000)) for delay in range(10, 100, 3) for _ in range(3)]
print("times called early:", sum(by > 0 for by in found), "of", len(found), f"by up to {max(found) * 1e6:.0f} us")
ok = max(found) <= 0
print("conforms" if ok else "deviates")
sys.exit(not ok)
