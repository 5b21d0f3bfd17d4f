"""An aiohttp client through `asyncio.Runner(loop_factory=...)`: BASE SECONDS; prints how many answers were right."""

from __future__ import annotations

import asyncio
import sys

import aiohttp

from tests import support


async def ask(session: aiohttp.ClientSession, base: str, number: int, deadline: float) -> int:
    loop = asyncio.get_running_loop()
    right = 0
    while loop.time() < deadline:
        sent = f"{number}.{right}.".encode() * (1 + right % 5000)
        async with session.post(f"{base}/echo", data=sent) as response:
            assert response.status == 200
            assert await response.read() == sent
        async with session.get(f"{base}/path/{number}/{right}") as response:
            assert await response.text() == f"/path/{number}/{right}"
        right += 2
    return right


async def main(base: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/large") as response:
            large = await response.read()
        assert large == b"".join(bytes([65 + number]) * 65_536 for number in range(16))
        rights = await asyncio.gather(*(ask(session, base, number, deadline) for number in range(20)))
    print(f"{type(loop).__name__}: {sum(rights)} right answers", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main(sys.argv[1], float(sys.argv[2])))
