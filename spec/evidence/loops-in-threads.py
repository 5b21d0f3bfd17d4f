"""callbacks.run.several-threads: one loop is run by one thread after the other.

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys
import threading

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
results = []


def work():
    try:
        results.append(loop.run_until_complete(asyncio.sleep(0.01, "ran")))
    except Exception as error:
        results.append(repr(error))


for _ in range(3):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print("runs:", results)
ok = results == ["ran"] * 3
print("conforms" if ok else "deviates")
sys.exit(not ok)
