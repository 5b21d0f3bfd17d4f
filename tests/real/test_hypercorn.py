"""Hypercorn serves HTTP/1.1, HTTP/2 and WebSockets; its clients are blocking ones in threads."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import random
import re
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spec._kit import peers
from tests import support
from tests.apps.asgi import app
from tests.real.certificates import Certificates
from tests.real.conftest import OnLoop
from tests.support import Program

hypercorn = pytest.importorskip("hypercorn", reason="hypercorn is not installed (make test-real installs it)")
hypercorn_asyncio = pytest.importorskip("hypercorn.asyncio")
h2 = pytest.importorskip("h2.connection")

TIMEOUT = 15.0
LARGE = b"".join(bytes([65 + number % 26]) * 65_536 for number in range(16))


def serve(
    on_loop: OnLoop, clients: int, client: Callable[[int, int], Any], application: Any = app, **more: Any
) -> None:
    """Run the server and as many clients, `client(port, number)` each in a thread; all must end well."""
    config = hypercorn.Config()
    config.errorlog = logging.getLogger("tests.hypercorn")
    for name, value in more.items():
        setattr(config, name, value)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with peers.listener() as sock, ThreadPoolExecutor(clients) as pool:
            config.bind = [f"fd://{sock.fileno()}"]
            port = sock.getsockname()[1]
            done = asyncio.Event()
            server = asyncio.create_task(hypercorn_asyncio.serve(application, config, shutdown_trigger=done.wait))
            calls = [loop.run_in_executor(pool, client, port, number) for number in range(clients)]
            try:
                await asyncio.gather(*calls)
            finally:
                done.set()
                await server
                sock.detach()  # the server closed it

    on_loop(main())


def fetch(conn: http.client.HTTPConnection, number: int) -> None:
    """A few requests of each kind over one connection."""
    for turn in range(10):
        conn.request("GET", f"/{number}/{turn}")
        with conn.getresponse() as response:
            assert (response.status, response.read()) == (200, f"/{number}/{turn}".encode())
    body = random.Random(number).randbytes(300_000)
    conn.request("POST", "/", body)
    with conn.getresponse() as response:
        assert hashlib.sha256(response.read()).digest() == hashlib.sha256(body).digest()
    conn.request("GET", "/large")
    with conn.getresponse() as response:
        assert response.read() == LARGE


def test_http_1_1_of_many_clients_at_once(on_loop: OnLoop) -> None:
    def client(port: int, number: int) -> None:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        fetch(conn, number)
        conn.close()

    serve(on_loop, 8, client)


def test_http_1_1_over_tls(on_loop: OnLoop, certificates: Certificates) -> None:
    context = certificates.client()

    def client(port: int, number: int) -> None:
        conn = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=context)
        conn.sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), TIMEOUT), server_hostname="localhost"
        )
        fetch(conn, number)
        conn.close()

    serve(on_loop, 3, client, certfile=certificates.cert, keyfile=certificates.key, alpn_protocols=["http/1.1"])


def test_http_2_streams_share_a_connection(on_loop: OnLoop) -> None:
    def client(port: int, number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
            fetch_streams(sock, number)

    serve(on_loop, 3, client)


def test_http_2_is_agreed_on_over_tls(on_loop: OnLoop, certificates: Certificates) -> None:
    context = certificates.client()
    context.set_alpn_protocols(["h2", "http/1.1"])

    def client(port: int, number: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            assert sock.selected_alpn_protocol() == "h2"
            fetch_streams(sock, number)

    serve(on_loop, 3, client, certfile=certificates.cert, keyfile=certificates.key)


def test_httpx_shares_one_connection_over_tls(on_loop: OnLoop, certificates: Certificates) -> None:
    httpx = pytest.importorskip("httpx", reason="httpx is not installed (make test-real installs it)")

    async def use(port: int) -> None:
        async with httpx.AsyncClient(http2=True, verify=certificates.client(), timeout=TIMEOUT) as asks:
            answers = await asyncio.gather(*(asks.get(f"https://localhost:{port}/{number}") for number in range(50)))
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
            assert [answer.content for answer in answers] == [f"/{number}".encode() for number in range(50)]
            answer = await asks.get(f"https://localhost:{port}/large")
            assert answer.content == LARGE
            answer = await asks.post(f"https://localhost:{port}/", content=LARGE)
            assert answer.content == LARGE

    def client(port: int, _: int) -> None:
        with asyncio.Runner(loop_factory=on_loop.new_loop) as runner:
            runner.run(use(port))

    serve(on_loop, 2, client, certfile=certificates.cert, keyfile=certificates.key)


def fetch_streams(sock: socket.socket, number: int) -> None:
    """A few requests over one connection of HTTP/2, all at once."""
    import h2.events

    conn = h2.connection.H2Connection()
    bodies: dict[int, bytes] = {}
    wanted: dict[int, bytes] = {}
    conn.initiate_connection()
    for turn in range(20):
        path = "/large" if turn % 5 == 0 else f"/{number}/{turn}"
        stream = conn.get_next_available_stream_id()
        head = [(":method", "GET"), (":authority", "localhost"), (":scheme", "http"), (":path", path)]
        conn.send_headers(stream, head, end_stream=True)
        wanted[stream], bodies[stream] = (LARGE if path == "/large" else path.encode()), b""
    open_streams = set(wanted)
    while open_streams:
        sock.sendall(conn.data_to_send())
        data = sock.recv(65_536)
        assert data, "the server ended the connection"
        for event in conn.receive_data(data):
            match event:
                case h2.events.DataReceived():
                    bodies[event.stream_id] += event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    open_streams.discard(event.stream_id)
    conn.close_connection()
    sock.sendall(conn.data_to_send())
    assert bodies == wanted


async def echo_socket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application: what comes over a WebSocket goes back."""
    if scope["type"] == "lifespan":
        await app(scope, receive, send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


def test_websockets_echo_messages_of_any_size(on_loop: OnLoop) -> None:
    client_of = pytest.importorskip("websockets.sync.client")

    def client(port: int, number: int) -> None:
        with client_of.connect(f"ws://127.0.0.1:{port}/", open_timeout=TIMEOUT, max_size=None) as conn:
            for message in ("text", "", b"bytes", random.Random(number).randbytes(500_000), *map(str, range(50))):
                conn.send(message)
                assert conn.recv(TIMEOUT) == message

    serve(on_loop, 4, client, echo_socket)


@pytest.mark.parametrize("under", ["python", "python -m tokioloop"] if support.OURS else ["python"])
def test_the_program_serves_and_ends_on_a_signal(under: str) -> None:
    arguments = ["-m", "hypercorn", "--workers", "0", "--bind", "127.0.0.1:0", "tests.apps.asgi:app"]
    with Program(sys.executable, *under.split()[1:], *arguments) as server:
        port = int(re.findall(r"Running on http://127\.0\.0\.1:(\d+)", server.wait_for("Running on"))[0])
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        fetch(conn, 1)
        conn.close()
        assert server.end(signal.SIGTERM) == 0, server.output
    assert ("TokioLoop: lifespan.startup" in server.output) is ("tokioloop" in under)
    assert "lifespan.shutdown" in server.output
    assert not re.search(r"Traceback|ERROR|WARN|exception|never retrieved", server.output), server.output
