"""lifecycle.close.methods-refuse: create_server() of a closed loop raises RuntimeError; the process goes on.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13: the process is killed
- loopmini 0.2.3 (loopmini:new_event_loop) on CPython 3.13: it makes the server
- talyn 0.10.4 (talyn:Loop) on CPython 3.13: the process is killed
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
loop.close()
ok = False
try:
    # A coroutine of the closed loop needs one that runs.
    asyncio.new_event_loop().run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
    print("a closed loop has made a server")
except RuntimeError as error:
    print(f"raised {error!r}")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
