"""Programs that people run serve a real load for some seconds: answers right, no error logged, descriptors back."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from spec._kit import peers
from tests import load, support
from tests.support import Program

SECONDS = 2.0
"""How long each load lasts."""
CONNECTIONS = 20
APPS = Path(__file__).with_name("apps")
CLASS = {"tokioloop:new_event_loop": "TokioLoop"}.get(support.LOOP)
UNDER_US = ("-m", "tokioloop") if support.OURS else ()
"""`python -m tokioloop` runs a plain script on our loop; stock asyncio needs nothing."""

pytestmark = pytest.mark.timeout(90)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def port_of(server: Program, pattern: str) -> int:
    """The port that a server says it serves on."""
    server.wait_for("serves on port" if "serves" in pattern else "Uvicorn running on")
    while (found := re.search(pattern, server.output)) is None:
        server.wait_for("\n" + server.output.rpartition("\n")[2])
    return int(found[1])


def serve_load(server: Program, port: int, exchange: load.Exchange) -> int:
    """Put the load on `server` twice, connections kept and made anew; its descriptors must be back afterwards."""
    with socket.create_connection(("127.0.0.1", port), load.TIMEOUT) as sock:
        exchange(sock, 0)  # what is opened at first use is no leak
    before = settled(server)
    right = load.run(port, exchange, connections=CONNECTIONS, seconds=SECONDS / 2)
    right += load.run(port, exchange, connections=CONNECTIONS, seconds=SECONDS / 2, reconnect_every=5)
    assert support.wait_until(lambda: len(support.fds(server.pid)) <= len(before)), (
        f"descriptors before: {before}, after: {support.fds(server.pid)}"
    )
    return right


def serve_load_and_end(server: Program, exchange: load.Exchange) -> None:
    """Put the load on a server of `apps`, which says its loop and port first; then interrupt it: it ends in order."""
    port = port_of(server, r"serves on port (\d+)\.")
    assert CLASS is None or server.output.startswith(CLASS)
    assert serve_load(server, port, exchange) > 100
    status = server.end(signal.SIGINT)
    assert status == 0 and server.output.endswith("ended\n"), server.output
    assert_no_error(server.output)


def settled(server: Program) -> dict[int, str]:
    """The server's descriptors once no connection is open: those that are no accepted socket."""
    last: list[dict[int, str]] = [{}]

    def same_twice() -> bool:
        now = support.fds(server.pid)
        same, last[0] = now == last[0], now
        return same

    assert support.wait_until(same_twice)
    return last[0]


def assert_no_error(output: str) -> None:
    assert not re.search(r"Traceback|ERROR|CRITICAL|WARN|exception|panicked|never retrieved", output), output


@linux
def test_uvicorn_with_httptools_serves_a_load() -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("httptools")
    options = ["--http", "httptools", "--port", "0", "--no-access-log", "--loop", support.LOOP]
    with Program(sys.executable, "-m", "uvicorn", "tests.apps.asgi:app", *options) as server:
        port = port_of(server, r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
        assert serve_load(server, port, load.http) > 100
        status = server.end(signal.SIGINT)
    assert CLASS is None or f"{CLASS}: lifespan.startup" in server.output
    assert "Finished server process" in server.output
    assert status in (0, -signal.SIGINT), server.output
    assert_no_error(server.output)


@linux
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_an_answer_of_uvicorn_does_not_wait_for_requests_that_block_behind_it(http: str) -> None:
    """Each of the requests of one turn blocks the loop until the answer to the one before has arrived."""
    pytest.importorskip("uvicorn")
    pytest.importorskip(http)
    options = ["--http", http, "--port", "0", "--no-access-log", "--loop", support.LOOP]
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listening.settimeout(load.TIMEOUT)
        control_port = str(listening.getsockname()[1])
        command = [sys.executable, "-m", "uvicorn", "tests.apps.blocking_asgi:app", *options]
        server = stack.enter_context(Program(*command, CONTROL=control_port))
        port = port_of(server, r"Uvicorn running on http://127\.0\.0\.1:(\d+)")

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), load.TIMEOUT))

        first, *others = [connect() for _ in range(5)]
        first.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
        control, _ = listening.accept()
        stack.enter_context(control).settimeout(load.TIMEOUT)
        assert control.recv(1) == b"?"
        for sock in others:  # they come in while the loop is blocked, so one turn finds them all
            sock.sendall(b"GET /others HTTP/1.1\r\nHost: x\r\n\r\n")
        control.sendall(b"!")
        assert whole_answer(first) == b"/first"
        while others:
            assert control.recv(1) == b"?"
            control.sendall(b"!")
            readable, _, _ = select.select(others, [], [], load.TIMEOUT)
            assert len(readable) == 1, "no answer until the next request is through"
            assert whole_answer(readable[0]) == b"/others"
            others.remove(readable[0])
        server.end(signal.SIGINT)
    assert_no_error(server.output)


def whole_answer(sock: socket.socket) -> bytes:
    """The body of an HTTP answer with a content-length."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(1)
    found = re.search(rb"content-length: (\d+)", got.lower())
    assert found, got
    return peers.recv_exactly(sock, int(found[1]))


@linux
def test_uvicorn_serves_wrk() -> None:
    pytest.importorskip("uvicorn")
    wrk = shutil.which("wrk")
    if wrk is None:
        pytest.skip("wrk is not installed (the other tests use a load of their own)")
    options = ["--http", "httptools", "--port", "0", "--no-access-log", "--loop", support.LOOP]
    with Program(sys.executable, "-m", "uvicorn", "tests.apps.asgi:app", *options) as server:
        port = port_of(server, r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
        before = settled(server)
        url = f"http://127.0.0.1:{port}/path"
        done = subprocess.run(
            [wrk, "-t1", "-c50", f"-d{SECONDS:g}s", url], capture_output=True, text=True, timeout=60, check=True
        )
        assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
        assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 100, done.stdout
        assert support.wait_until(lambda: len(support.fds(server.pid)) <= len(before))
        server.end(signal.SIGINT)
    assert_no_error(server.output)


@linux
def test_an_aiohttp_server_under_a_runner_serves_a_load() -> None:
    pytest.importorskip("aiohttp")
    with Program(sys.executable, "-m", "tests.apps.aiohttp_server") as server:
        serve_load_and_end(server, load.http)


@linux
def test_an_aiohttp_client_under_a_runner_gets_right_answers() -> None:
    pytest.importorskip("aiohttp")
    with Program(sys.executable, "-m", "tests.apps.aiohttp_server") as server:
        port = port_of(server, r"serves on port (\d+)\.")
        before = settled(server)
        command = [sys.executable, "-m", "tests.apps.aiohttp_client", f"http://127.0.0.1:{port}", str(SECONDS)]
        done = subprocess.run(
            command,
            cwd=support.PROJECT,
            env=support.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
        assert int(re.findall(r": (\d+) right answers", done.stdout)[0]) > 100
        assert CLASS is None or done.stdout.startswith(CLASS)
        assert support.wait_until(lambda: len(support.fds(server.pid)) <= len(before))
        server.end(signal.SIGINT)
    assert_no_error(server.output)


@linux
@pytest.mark.parametrize("how", ["script", "module", "script in debug mode"])
def test_a_plain_script_under_python_m_tokioloop_serves_a_load(how: str) -> None:
    target = ["-m", "tests.apps.echo"] if how == "module" else [str(APPS / "echo.py")]
    # Debug mode checks every call, and -X dev shows every warning.
    options, env = (["-X", "dev"], {"PYTHONASYNCIODEBUG": "1"}) if "debug" in how else ([], {})
    with Program(sys.executable, *options, *UNDER_US, *target, "one", "--two", **env) as server:
        serve_load_and_end(server, load.line)
        assert "['one', '--two']" in server.output, "the program gets its own arguments"


@linux
def test_descriptors_of_the_loop_itself_go_with_it() -> None:
    for _ in range(2):  # what the first loop of a process opens for good (imports, resolver) does not count
        before = os.listdir("/proc/self/fd")
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            runner.run(asyncio.sleep(0))
        after = os.listdir("/proc/self/fd")
    assert len(after) <= len(before)
