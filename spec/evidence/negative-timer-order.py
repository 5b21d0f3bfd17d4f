"""timers.order.by-deadline: timers that are due in one iteration are called in the order of their deadlines.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
seen = []
now = loop.time()
for ago in (1, 3, 2):
    loop.call_at(now - ago, seen.append, ago)
loop.call_later(0.05, loop.stop)
loop.run_forever()
print("seconds ago that these were due, in the order of the calls:", seen)
ok = seen == [3, 2, 1]
print("conforms" if ok else "deviates")
sys.exit(not ok)
