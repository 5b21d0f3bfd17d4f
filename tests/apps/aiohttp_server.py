"""An aiohttp server through `asyncio.Runner(loop_factory=...)`: answers as `tests/apps/asgi.py` does, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from tests import support


async def answer(request: web.Request) -> web.StreamResponse:
    if request.path == "/large":
        response = web.StreamResponse()
        response.content_length = 1 << 20
        await response.prepare(request)
        for number in range(16):
            await response.write(bytes([65 + number]) * 65_536)
        await response.write_eof()
        return response
    body = await request.read()
    return web.Response(body=body or request.path.encode())


async def main() -> None:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"{type(asyncio.get_running_loop()).__name__} serves on port {runner.addresses[0][1]}.", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        print("ended", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=support.factory()) as loop_runner:
        loop_runner.run(main())
