"""callbacks.errors.default-logs: without a handler, the exception of a callback is logged to the logger asyncio."""

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
