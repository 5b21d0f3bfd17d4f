"""subprocess.exit.code: wait() of a child returns its exit code.

Not kept by
- uringcore 0.9.1 (uringcore:UringEventLoop) on CPython 3.13
"""

import asyncio
import faulthandler
import importlib
import sys

module, _, factory = (sys.argv[1:] or ["uringcore:UringEventLoop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    child = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 3")
    return await child.wait()


faulthandler.dump_traceback_later(5, exit=True)  # a loop that hangs
ok = False
try:
    code = loop.run_until_complete(main())
    print("exit code:", code)
    ok = code == 3
except AttributeError as error:
    print(f"raised {error!r}")
print("conforms" if ok else "deviates")
sys.exit(not ok)
