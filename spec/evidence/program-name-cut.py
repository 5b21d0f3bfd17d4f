"""subprocess.start.failure: a null byte in the name of the program raises ValueError; no other program is run.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    child = await asyncio.create_subprocess_exec("/bin/true\0.not", stdout=asyncio.subprocess.DEVNULL)
    return await child.wait()


ok = False
try:
    print("/bin/true was run, with status", loop.run_until_complete(main()))
except (ValueError, OSError) as error:
    print(f"raised {error!r}")
    ok = True
print("conforms" if ok else "deviates")
sys.exit(not ok)
