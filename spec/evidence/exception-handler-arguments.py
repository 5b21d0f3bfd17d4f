"""callbacks.errors.reach-handler: an exception handler is called with the loop and the context.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
calls = []
loop.set_exception_handler(lambda *arguments: calls.append(arguments))
loop.call_soon(lambda: 1 / 0)
loop.call_later(0.1, loop.stop)
loop.run_forever()
print("the handler was called with", [type(argument).__name__ for call in calls for argument in call])
ok = len(calls) == 1 and len(calls[0]) == 2 and calls[0][0] is loop
print("conforms" if ok else "deviates")
sys.exit(not ok)
