"""callbacks.cancel.before-its-turn: a callback whose handle is cancelled is not called."""

import importlib
import sys

module, _, factory = (sys.argv[1:] or ["veloxloop:new_event_loop"])[0].partition(":")
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
