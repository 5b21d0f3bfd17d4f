"""subprocess.arguments.descriptors: a child has none of its parent's descriptors but those of pass_fds.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
- rsloop 0.1.66 (rsloop:new_event_loop) on CPython 3.14
"""

import asyncio
import importlib
import os
import sys

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()


async def main():
    reading, _writing = os.pipe()
    os.set_inheritable(reading, True)
    command = f"import os; print(os.path.exists('/dev/fd/{reading}'))"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", command, stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    return said.strip()


said = loop.run_until_complete(main())
print("is a descriptor of the parent open in the child:", said.decode())
ok = said == b"False"
print("conforms" if ok else "deviates")
sys.exit(not ok)
