"""tcp.errors.data-received: an exception in data_received() is reported and ends the connection, and nothing else.

Not kept by
- veloxloop 0.2.0 (veloxloop:new_event_loop) on CPython 3.13: it leaves the run
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13: the connection goes on
- talyn 0.10.4 (talyn:Loop) on CPython 3.13: the connection goes on
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13: the connection goes on
- rloop 0.5.0 (rloop:new_event_loop) on CPython 3.13: it is not reported
"""

import asyncio
import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["veloxloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
reports, lost = [], []
loop.set_exception_handler(lambda *arguments: reports.append(arguments[-1]))


class Failing(asyncio.Protocol):
    def data_received(self, data):
        raise LookupError("of the protocol")

    def connection_lost(self, exc):
        lost.append(exc)


async def main():
    ours, theirs = socket.socketpair()
    await loop.create_connection(Failing, sock=ours)
    theirs.send(b"data")
    await asyncio.sleep(0.2)
    return "goes on"


try:
    run = loop.run_until_complete(main())
except LookupError as error:
    run = f"ended by {error!r}"
print("the run", run, "- reports:", len(reports), "- connection_lost() was called with", lost)
ok = run == "goes on" and len(reports) == 1 and len(lost) == 1
print("conforms" if ok else "deviates")
sys.exit(not ok)
