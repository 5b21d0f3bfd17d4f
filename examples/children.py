"""Child processes: several at once, one that is spoken to, one that takes too long.

python examples/children.py
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

import tokioloop


async def output(source: str) -> str:
    """What a Python program prints."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdout=PIPE)
    out, _ = await child.communicate()
    return out.decode().strip()


async def talk() -> None:
    """Give a child a line at a time, and read each answer before the next."""
    source = "for line in iter(input, 'end'): print(line[::-1], flush=True)"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", source, stdin=PIPE, stdout=PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    for word in ("level", "stressed"):
        child.stdin.write(f"{word}\n".encode())
        print(word, "->", (await child.stdout.readline()).decode().strip())
    child.stdin.write(b"end\n")
    print("ended with", await child.wait())


async def lose_patience() -> None:
    """End a child that would run for ever."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=PIPE)
    try:
        async with asyncio.timeout(0.2):
            await child.wait()
    except TimeoutError:
        child.kill()
        print("killed, status", await child.wait())


async def main() -> None:
    """All three."""
    print("at once:", *await asyncio.gather(*(output(f"print({n} ** 2)") for n in range(5))))
    await talk()
    await lose_patience()


if __name__ == "__main__":
    tokioloop.run(main())
