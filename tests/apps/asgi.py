"""An ASGI application: GET answers with the path, POST with the body, `/large` with a mebibyte in chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = bytearray()
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    chunks = [bytes(body) or scope["path"].encode()]
    if scope["path"] == "/large":
        chunks = [bytes([65 + number % 26]) * 65_536 for number in range(16)]
    length = str(sum(map(len, chunks))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    for number, chunk in enumerate(chunks, 1):
        await send({"type": "http.response.body", "body": chunk, "more_body": number < len(chunks)})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        print(f"{type(asyncio.get_running_loop()).__name__}: {message['type']}", flush=True)
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
