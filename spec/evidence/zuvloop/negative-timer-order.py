"""timers.order.by-deadline: timers that are due in one iteration are called in the order of their deadlines."""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["zuvloop:new_event_loop"])[0].partition(":")
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
