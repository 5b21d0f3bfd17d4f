"""An HTTP or WebSocket server on the event loop under test.

    python apps.py uvicorn --loop uvloop --addr 127.0.0.1:0       an ASGI application, parsed by httptools
    python apps.py aiohttp --loop uvloop --addr 127.0.0.1:0       aiohttp's own server
    python apps.py websockets --loop asyncio --addr 127.0.0.1:0   echoes each message

Each answers a GET with 13 bytes. Prints `listening on HOST:PORT` once it accepts, and serves until it is killed.
SIGUSR1 has it free a large block (allocator.py).
"""

import argparse
import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import allocator
import loops
from server import format_addr, listener, parse_addr, use_cpu

BODY = b"Hello, world!"


async def asgi(scope: dict[str, Any], receive: Callable[[], Awaitable], send: Callable[[dict], Awaitable]) -> None:
    """The least that an ASGI application does."""
    headers = [(b"content-length", str(len(BODY)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def serve_uvicorn(sock: socket.socket) -> None:
    """uvicorn, without a log of each request."""
    import uvicorn

    config = uvicorn.Config(asgi, http="httptools", lifespan="off", access_log=False, log_level="warning")
    await uvicorn.Server(config).serve([sock])


async def serve_aiohttp(sock: socket.socket) -> None:
    """aiohttp, without a log of each request."""
    from aiohttp import web

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=BODY)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.SockSite(runner, sock).start()
    await asyncio.get_running_loop().create_future()


async def serve_websockets(sock: socket.socket) -> None:
    """An echo over WebSockets, without compression."""
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, sock=sock, compression=None):
        await asyncio.get_running_loop().create_future()


APPS = {"uvicorn": serve_uvicorn, "aiohttp": serve_aiohttp, "websockets": serve_websockets}


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description="HTTP or WebSocket server on the event loop under test.")
    parser.add_argument("app", choices=list(APPS))
    parser.add_argument("--loop", default="asyncio", help="NAME (NAME:new_event_loop) or module:factory")
    parser.add_argument("--addr", default="127.0.0.1:25000", help="HOST:PORT; port 0 picks a free one")
    parser.add_argument("--cpu", type=int, help="pin the server to this CPU")
    options = parser.parse_args()
    use_cpu(options.cpu)
    sock = listener(parse_addr(options.addr))
    loop = loops.factory(options.loop)()
    asyncio.set_event_loop(loop)
    serving = APPS[options.app](sock)
    allocator.free_at_signal()
    gc.freeze()
    # The kernel accepts from now on, and the server a moment later.
    print("listening on", format_addr(sock.getsockname()), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_until_complete(serving)


if __name__ == "__main__":
    main()
