"""callbacks.errors.exits-pass-through: SystemExit of a callback leaves run_forever().

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
- zloop 0.0.1 (zloop:new_event_loop) on CPython 3.13
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


def leaving():
    raise SystemExit(3)


ok = False
loop.call_soon(leaving)
loop.call_later(0.5, loop.stop)
try:
    loop.run_forever()
    print("run_forever() went on")
except SystemExit:
    print("SystemExit left run_forever()")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
