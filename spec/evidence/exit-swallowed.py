"""tcp.errors.exit-passes-through: SystemExit of data_received() leaves run_forever().

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- zloop 0.0.1 (zloop:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


class Exiting(asyncio.Protocol):
    def data_received(self, data):
        raise SystemExit(3)


ok = False
ours, theirs = socket.socketpair()
loop.set_exception_handler(lambda *_: None)
loop.run_until_complete(loop.create_connection(Exiting, sock=ours))
theirs.send(b"x")
loop.call_later(1, loop.stop)
try:
    loop.run_forever()
    print("run_forever() went on for a second")
except SystemExit:
    print("SystemExit left run_forever()")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
