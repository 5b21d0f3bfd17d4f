"""readers_writers.errors.callback-raises: an exception of a watcher reaches the exception handler.

Not kept by
- blazio 0.1.0 (blazio:new_event_loop) on CPython 3.13
"""

import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["blazio:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
reported = []


def reading():
    theirs.recv(1)
    raise ValueError("in a watcher")


ours, theirs = socket.socketpair()
loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
loop.add_reader(theirs, reading)
ours.send(b"x")
loop.call_later(0.1, loop.stop)
loop.run_forever()
loop.remove_reader(theirs)
print("the handler was told of", reported)
ok = len(reported) == 1
print("conforms" if ok else "deviates")
sys.exit(not ok)
