"""callbacks.cancel.before-its-turn: a callback whose handle is cancelled is not called.

Not kept by
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13
"""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["rloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
seen = []
handles = []
loop.call_soon(lambda: [handle.cancel() for handle in handles])
handles.append(loop.call_soon(seen.append, "cancelled before its turn"))
loop.call_soon(lambda: loop.call_soon(loop.stop))
loop.run_forever()
print("called:", seen)
ok = seen == []
print("conforms" if ok else "deviates")
sys.exit(not ok)
