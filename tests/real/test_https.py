"""uvicorn serves HTTPS as a program of its own, aiohttp and httpx are the clients: both ends on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import selectors
import signal
import socket
import ssl
import sys
from collections.abc import Iterator

import pytest

from spec._kit import peers
from tests import support
from tests.real.certificates import Certificates
from tests.real.conftest import OnLoop
from tests.support import Program

aiohttp = pytest.importorskip("aiohttp")
uvicorn = pytest.importorskip("uvicorn")

TIMEOUT = 15.0
LARGE = b"".join(bytes([65 + number % 26]) * 65_536 for number in range(16))
BLOB = random.Random(7).randbytes(700_001)


@contextlib.contextmanager
def serving(on_loop: OnLoop, certificates: Certificates, *options: str) -> Iterator[int]:
    """Uvicorn with TLS on the loop under test; its port. AssertionError where it logs an error or does not end well."""
    files = ["--ssl-keyfile", certificates.key, "--ssl-certfile", certificates.cert]
    command = ["-m", "uvicorn", "tests.apps.asgi:app", "--port", "0", "--no-access-log", "--loop", on_loop.name]
    with Program(sys.executable, "-W", "always::ResourceWarning", *command, *files, *options) as server:
        said = server.wait_for("(Press CTRL+C to quit)")
        port = int(re.findall(r"Uvicorn running on https://127\.0\.0\.1:(\d+)", said)[0])
        before = support.fds(server.pid)
        yield port
        assert support.wait_until(lambda: len(support.fds(server.pid)) <= len(before)), support.fds(server.pid)
        status = server.end(signal.SIGINT)
    assert status in (0, -signal.SIGINT), server.output
    assert ("TokioLoop: lifespan.shutdown" in server.output) is on_loop.name.startswith("tokioloop"), server.output
    # What asyncio says of writes to a peer that has gone is right.
    said = server.output.replace("socket.send() raised exception.", "")
    wrong = re.compile(r"Traceback|ERROR|CRITICAL|WARN|Warning|[Ee]xception|panicked|never retrieved|unclosed")
    assert not wrong.search(said), server.output


async def use(session: aiohttp.ClientSession, base: str, number: int) -> None:
    """A few requests of each kind."""
    for turn in range(10):
        async with session.get(f"{base}/{number}/{turn}") as answer:
            assert (answer.status, await answer.read()) == (200, f"/{number}/{turn}".encode())
    async with session.post(f"{base}/", data=BLOB) as answer:
        assert hashlib.sha256(await answer.read()).digest() == hashlib.sha256(BLOB).digest()
    async with session.get(f"{base}/large") as answer:
        assert await answer.read() == LARGE


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_aiohttp_gets_right_answers_of_uvicorn(on_loop: OnLoop, certificates: Certificates, http: str) -> None:
    pytest.importorskip(http)

    async def main(port: int) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=certificates.client())) as session:
            await asyncio.gather(*(use(session, f"https://localhost:{port}", number) for number in range(10)))
            async with session.get(f"https://localhost:{port}/large") as answer:
                # Not all of it is there yet, so that it still has its connection.
                assert answer.connection is not None and answer.connection.transport is not None
                tls = answer.connection.transport.get_extra_info("ssl_object")
                assert tls.version() == "TLSv1.3"
                assert ("DNS", "localhost") in tls.getpeercert()["subjectAltName"]

    with serving(on_loop, certificates, "--http", http) as port:
        on_loop(main(port))


def test_aiohttp_makes_a_connection_per_request(on_loop: OnLoop, certificates: Certificates) -> None:
    async def main(port: int) -> None:
        connector = aiohttp.TCPConnector(ssl=certificates.client(), force_close=True, limit=20)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask(number: int) -> bytes:
                async with session.get(f"https://127.0.0.1:{port}/{number}") as answer:
                    return await answer.read()

            answers = await asyncio.gather(*(ask(number) for number in range(100)))
            assert answers == [f"/{number}".encode() for number in range(100)]

    with serving(on_loop, certificates) as port:
        on_loop(main(port))


def test_aiohttp_refuses_a_server_it_does_not_trust(on_loop: OnLoop, certificates: Certificates) -> None:
    async def main(port: int) -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"https://localhost:{port}/")
        trusting = certificates.client()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"not valid for 'elsewhere\.example'"):
                await session.get(f"https://localhost:{port}/", server_hostname="elsewhere.example")
            await use(session, f"https://localhost:{port}", 1)

    with serving(on_loop, certificates) as port:
        on_loop(main(port))


def test_aiohttp_leaves_in_the_middle_of_an_answer(on_loop: OnLoop, certificates: Certificates) -> None:
    async def main(port: int) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=certificates.client())) as session:
            for _ in range(10):
                async with session.get(f"https://localhost:{port}/large") as answer:
                    assert await answer.content.readexactly(1000) == LARGE[:1000]
            await use(session, f"https://localhost:{port}", 1)

    with serving(on_loop, certificates) as port:
        on_loop(main(port))


def test_uvicorn_asks_for_the_clients_certificate(on_loop: OnLoop, certificates: Certificates) -> None:
    async def main(port: int) -> None:
        context = certificates.client()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, force_close=True)) as session:
            with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
                await session.get(f"https://localhost:{port}/")
            context.load_cert_chain(certificates.client_cert, certificates.client_key)
            await use(session, f"https://localhost:{port}", 1)

    options = ["--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED)), "--ssl-ca-certs", certificates.authority]
    with serving(on_loop, certificates, *options) as port:
        on_loop(main(port))


# ---- through a proxy: start_tls() on a connection that was used before


def tunnel(conn: socket.socket) -> None:
    """An HTTP proxy for one connection: answers CONNECT, then passes on what comes from either end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += conn.recv(1)
    target = re.match(rb"CONNECT [^:]+:(\d+) HTTP/1.1\r\n", head)
    assert target, head
    with socket.create_connection(("127.0.0.1", int(target[1])), TIMEOUT) as far, selectors.DefaultSelector() as ready:
        conn.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for near, other in ((conn, far), (far, conn)):
            ready.register(near, selectors.EVENT_READ, other)
        with contextlib.suppress(ConnectionError):
            while True:
                for key, _ in ready.select(TIMEOUT):
                    assert isinstance(key.fileobj, socket.socket)
                    # All of it: the selector does not see what a TLS socket has already taken from the system.
                    while data := key.fileobj.recv(65_536):
                        key.data.sendall(data)
                        if not isinstance(key.fileobj, ssl.SSLSocket) or not key.fileobj.pending():
                            break
                    if not data:
                        return


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_aiohttp_goes_through_a_proxy(on_loop: OnLoop, certificates: Certificates, scheme: str) -> None:
    context = certificates.server()

    def proxy(conn: socket.socket) -> None:
        if scheme == "https":
            with context.wrap_socket(conn, server_side=True) as wrapped:
                tunnel(wrapped)
        else:
            tunnel(conn)

    async def main(port: int, near: int) -> None:
        connector = aiohttp.TCPConnector(ssl=certificates.client())
        async with aiohttp.ClientSession(connector=connector, proxy=f"{scheme}://localhost:{near}") as session:
            await asyncio.gather(*(use(session, f"https://localhost:{port}", number) for number in range(3)))

    with serving(on_loop, certificates) as port, peers.serve(proxy) as addr:
        on_loop(main(port, addr[1]))


# ---- httpx


@pytest.fixture
def httpx() -> object:
    return pytest.importorskip("httpx", reason="httpx is not installed (make test-real installs it)")


def test_httpx_gets_right_answers_of_uvicorn(on_loop: OnLoop, certificates: Certificates, httpx: object) -> None:
    async def main(port: int) -> None:
        async with httpx.AsyncClient(verify=certificates.client(), timeout=TIMEOUT) as client:

            async def ask(number: int) -> None:
                for turn in range(10):
                    answer = await client.get(f"https://localhost:{port}/{number}/{turn}")
                    assert (answer.status_code, answer.content) == (200, f"/{number}/{turn}".encode())
                answer = await client.post(f"https://localhost:{port}/", content=BLOB)
                assert answer.content == BLOB
                answer = await client.get(f"https://localhost:{port}/large")
                assert answer.content == LARGE

            await asyncio.gather(*(ask(number) for number in range(10)))
        async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"https://localhost:{port}/")

    with serving(on_loop, certificates) as port:
        on_loop(main(port))
