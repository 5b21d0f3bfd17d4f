"""subprocess.threads.any: loops in two threads start children at the same moment.

Not kept by
- uvloop 0.23.0 (uvloop:new_event_loop) on CPython 3.13
"""

import asyncio
import importlib
import sys
import threading

module, _, factory = (sys.argv[1:] or ["uvloop:new_event_loop"])[0].partition(":")
loop = getattr(importlib.import_module(module), factory)()
make = type(loop)
errors = []


async def start():
    for _ in range(60):
        child = await asyncio.create_subprocess_exec("/bin/true")
        await child.wait()


def work():
    mine = getattr(importlib.import_module(module), factory)()
    asyncio.set_event_loop(mine)
    try:
        mine.run_until_complete(asyncio.wait_for(start(), 5))
    except Exception as error:
        errors.append(repr(error))


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("errors:", errors)
ok = not errors
print("conforms" if ok else "deviates")
sys.exit(not ok)
