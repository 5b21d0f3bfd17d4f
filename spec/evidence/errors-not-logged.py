"""callbacks.errors.default-logs: without a handler, the exception of a callback is logged to the logger asyncio.

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
- zloop 0.0.1 (zloop:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import importlib
import logging
import sys

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
records = []


class Keeping(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())


logging.getLogger("asyncio").addHandler(Keeping())
logging.getLogger("asyncio").propagate = False
loop.call_soon(lambda: 1 / 0)
loop.call_later(0.05, loop.stop)
loop.run_forever()
print("logged:", records)
ok = len(records) == 1
print("conforms" if ok else "deviates")
sys.exit(not ok)
