"""timers.deadline.now-is-due: a delay that is negative is due in the next iteration.

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13: ValueError
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
called = []
try:
    loop.call_later(-1, called.append, "called")
except ValueError as error:
    print("call_later(-1, ...) raised", repr(error))
loop.run_until_complete(asyncio.sleep(0.05))
print("called:", called)
ok = called == ["called"]
print("conforms" if ok else "deviates")
sys.exit(not ok)
