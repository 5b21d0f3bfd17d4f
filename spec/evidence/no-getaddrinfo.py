"""dns.getaddrinfo.numeric: getaddrinfo() of a numeric host has its address.

Not kept by
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
"""

import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["uringcore:UringEventLoop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
ok = False
try:
    found = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    print("found", found)
    ok = found[0][4] == ("127.0.0.1", 80)
except NotImplementedError as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
