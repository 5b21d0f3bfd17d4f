"""callbacks.order.fifo: callbacks are called in the order of scheduling, by call_soon() or call_soon_threadsafe().

Not kept by
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["loopmini:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
seen = []
for index in range(10):
    schedule = loop.call_soon_threadsafe if index % 2 else loop.call_soon
    schedule(seen.append, index)
loop.call_later(0.05, loop.stop)
loop.run_forever()
print("called:", seen)
ok = seen == list(range(10))
print("conforms" if ok else "deviates")
sys.exit(not ok)
