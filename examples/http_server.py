"""An ASGI application on uvicorn, asked by aiohttp's client, all on one loop.

pip install uvicorn aiohttp
python examples/http_server.py

By uvicorn's own command: `uvicorn --app-dir examples http_server:app --loop tokioloop:new_event_loop`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvicorn

import tokioloop


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer every request with its path and the class of the loop, as JSON."""
    if scope["type"] != "http":
        return  # no lifespan: uvicorn goes on without
    body = json.dumps({"path": scope["path"], "loop": type(asyncio.get_running_loop()).__name__}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main() -> None:
    """Serve on a free port, ask three times, stop."""
    # It listens before there is a server: the first request waits in its queue.
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        for path in ("/", "/one", "/two"):
            async with session.get(path) as response:
                print(response.status, await response.json())
    server.should_exit = True
    await serving


if __name__ == "__main__":
    tokioloop.run(main())
