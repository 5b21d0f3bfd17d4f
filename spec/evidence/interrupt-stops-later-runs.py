"""readers_writers.errors.interrupts-pass-through: KeyboardInterrupt of a watcher leaves run_forever().

Not kept by
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
"""

import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["blazio:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


def reading():
    theirs.recv(1)
    raise KeyboardInterrupt


ok = False
ours, theirs = socket.socketpair()
loop.add_reader(theirs, reading)
ours.send(b"x")
loop.call_later(0.3, loop.stop)
try:
    loop.run_forever()
    print("run_forever() went on")
except KeyboardInterrupt:
    print("KeyboardInterrupt left run_forever()")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
