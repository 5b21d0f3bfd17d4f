"""callbacks.run.keyboard-interrupt: Ctrl-C leaves a run as KeyboardInterrupt, also where the loop only waits.

Not kept by
- zuvloop 0.0.17 (zuvloop:new_event_loop) on CPython 3.14: not before something else wakes the loop
"""

import importlib
import os
import signal
import sys
import threading
import time

module, _, factory = (sys.argv[1:] or ["zuvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
loop.call_later(3, loop.stop)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted", end=" ")
else:
    print("not interrupted", end=" ")
seconds = time.monotonic() - start
print(f"after {seconds:.1f} s, for a signal that came after 0.2")
ok = seconds < 2
print("conforms" if ok else "deviates")
sys.exit(not ok)
