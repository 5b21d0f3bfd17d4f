"""callbacks.errors.exits-pass-through: SystemExit of a callback leaves run_forever()."""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["veloxloop:new_event_loop"])[0].partition(":")
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
