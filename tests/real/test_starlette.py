"""Starlette under uvicorn: routes, uploads, streams, files, threads, background tasks and WebSockets, over TCP and a
Unix socket; its clients are blocking ones in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spec._kit import peers
from tests.real.conftest import OnLoop

uvicorn = pytest.importorskip("uvicorn")
starlette = pytest.importorskip("starlette", reason="starlette is not installed (make test-real installs it)")

TIMEOUT = 15.0
BLOB = random.Random(4).randbytes(1 << 20)


class Events:
    """What the application did."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.background: list[str] = []


def application(events: Events, folder: Path) -> Any:
    """An application with one route per thing to see."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        events.names.append("startup")
        yield
        events.names.append("shutdown")

    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"item": request.path_params["item"], "query": dict(request.query_params)})

    async def upload(request: Request) -> PlainTextResponse:
        digest = hashlib.sha256()
        async for part in request.stream():
            digest.update(part)
        return PlainTextResponse(digest.hexdigest())

    async def stream(_: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(200):
                yield f"part {number}\n".encode()
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    def in_a_thread(_: Request) -> PlainTextResponse:
        return PlainTextResponse(str(threading.current_thread() is not threading.main_thread()))

    async def later(request: Request) -> PlainTextResponse:
        task = BackgroundTask(events.background.append, request.query_params["name"])
        return PlainTextResponse("soon", background=task)

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_text():
            await websocket.send_text(message.upper())

    (folder / "blob").write_bytes(BLOB)
    routes = [
        Route("/items/{item:int}", item),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/thread", in_a_thread),
        Route("/later", later),
        Route("/file", lambda _: FileResponse(folder / "blob")),
        WebSocketRoute("/echo", echo),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(on_loop: OnLoop, events: Events, folder: Path, sock: socket.socket, *calls: Callable[[], Any]) -> None:
    """Serve on a listening socket while each of `calls` runs in a thread."""
    config = uvicorn.Config(application(events, folder), log_config=None, access_log=False, lifespan="on")

    async def main() -> None:
        server = uvicorn.Server(config)
        # As `Server.run` without its signal handlers, which belong to a program.
        serving = asyncio.create_task(server._serve([sock]))
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(calls)) as pool:
            try:
                await asyncio.gather(*(loop.run_in_executor(pool, call) for call in calls))
            finally:
                server.should_exit = True
                await serving

    with sock:
        on_loop(main())
    assert events.names == ["startup", "shutdown"]


def ask(conn: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    conn.request(method, path, body)
    with conn.getresponse() as response:
        return response.status, response.read()


def use(conn: http.client.HTTPConnection, number: int) -> None:
    """Use each route over one connection."""
    for turn in range(10):
        status, body = ask(conn, "GET", f"/items/{turn}?n={number}")
        assert (status, json.loads(body)) == (200, {"item": turn, "query": {"n": str(number)}})
    assert ask(conn, "GET", "/items/none")[0] == 404
    assert ask(conn, "PUT", "/upload")[0] == 405
    assert ask(conn, "POST", "/upload", BLOB) == (200, hashlib.sha256(BLOB).hexdigest().encode())
    assert ask(conn, "GET", "/stream") == (200, b"".join(f"part {n}\n".encode() for n in range(200)))
    assert ask(conn, "GET", "/thread") == (200, b"True")
    assert ask(conn, "GET", "/file") == (200, BLOB)
    assert ask(conn, "GET", f"/later?name={number}") == (200, b"soon")
    conn.close()


def test_every_route_serves_many_clients(on_loop: OnLoop, tmp_path: Path) -> None:
    events, sock = Events(), peers.listener()
    port = sock.getsockname()[1]

    def client(number: int) -> None:
        use(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT), number)

    serve(on_loop, events, tmp_path, sock, *((lambda number=number: client(number)) for number in range(6)))
    assert sorted(events.background) == [str(number) for number in range(6)]


def test_a_unix_socket_serves_the_same(on_loop: OnLoop, tmp_path: Path) -> None:
    events, sock, path = Events(), socket.socket(socket.AF_UNIX), str(tmp_path / "socket")
    sock.bind(path)
    sock.listen()

    def client(number: int) -> None:
        conn = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
        conn.sock = socket.socket(socket.AF_UNIX)
        conn.sock.settimeout(TIMEOUT)
        conn.sock.connect(path)
        use(conn, number)

    serve(on_loop, events, tmp_path, sock, *((lambda number=number: client(number)) for number in range(3)))


def test_websockets_echo_while_others_come_and_go(on_loop: OnLoop, tmp_path: Path) -> None:
    client_of = pytest.importorskip("websockets.sync.client")
    events, sock = Events(), peers.listener()
    port = sock.getsockname()[1]

    def client() -> None:
        for _ in range(5):
            with client_of.connect(f"ws://127.0.0.1:{port}/echo", open_timeout=TIMEOUT) as conn:
                for message in ("text", "long " * 20_000, *map(str, range(20))):
                    conn.send(message)
                    assert conn.recv(TIMEOUT) == message.upper()

    serve(on_loop, events, tmp_path, sock, *[client] * 4)
