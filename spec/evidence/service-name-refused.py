"""dns.getaddrinfo.port-forms: the port of getaddrinfo() may be the name of a service, as in socket.getaddrinfo().

Not kept by
- talyn 0.10.4 (talyn:Loop) on CPython 3.13
"""

import importlib
import socket
import sys

module, _, factory = (sys.argv[1:] or ["talyn:Loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
ok = False
try:
    found = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM))
    print("found", found)
    ok = found[0][4] == ("127.0.0.1", 80)
except TypeError as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
