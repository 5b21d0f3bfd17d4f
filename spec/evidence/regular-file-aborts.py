"""pipes.connect.regular-file: connect_read_pipe() of a regular file raises ValueError.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    with open(__file__, "rb") as file:
        await loop.connect_read_pipe(asyncio.Protocol, file)


ok = False
try:
    loop.run_until_complete(main())
except (ValueError, OSError) as error:  # else an assertion of the loop ends the process: status 134
    print(f"raised {error!r}")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
