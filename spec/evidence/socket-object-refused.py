"""readers_writers.kinds.fd-number-or-object: add_reader() takes a number, or an object with fileno().

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
"""

import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
seen = []
ours, theirs = socket.socketpair()
ok = False
try:
    loop.add_reader(theirs, lambda: (seen.append("readable"), loop.stop()))
    ours.send(b"x")
    loop.call_later(1, loop.stop)
    loop.run_forever()
    loop.remove_reader(theirs)
    print("called:", seen)
    ok = bool(seen)
except (RuntimeError, TypeError) as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
