"""The programs of `examples/` and of the README: each as a user runs it, with what it prints and no warning."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.support import Program

EXAMPLES = support.PROJECT / "examples"
README = support.PROJECT / "README.md"
SECONDS = 60
"""How long an example may take."""
BY_COMMAND = {"echo_streams"}
"""Those that know nothing of tokioloop: `python -m tokioloop` runs them."""
NEEDS = {"http_server": ("uvicorn", "aiohttp"), "tls": ("trustme",)}
"""What has to be installed."""

PRINTS = {
    "children": """\
at once: 0 1 4 9 16
level -> level
stressed -> desserts
ended with 0
killed, status -9
""",
    "coalescing": """\
coalesce_writes = False: 5 writes, 5 sent
coalesce_writes = True: 5 writes, 1 sent
""",
    "datagrams": """\
dropped one
first has 5 bytes
the second has 10 bytes
""",
    "echo_protocol": """\
5 bytes came back, as sent
1000000 bytes came back, as sent
""",
    "echo_streams": """\
TokioLoop
ONE, TWO, CLIENT 9
""",
    "http_server": """\
200 {'path': '/', 'loop': 'TokioLoop'}
200 {'path': '/one', 'loop': 'TokioLoop'}
200 {'path': '/two', 'loop': 'TokioLoop'}
""",
    "looking_in": f"""\
callbacks run: some
tcp: in 0 B, out 7 B
tcp: in 7 B, out 0 B
tokioloop: 1 open loop
busy
{EXAMPLES}/looking_in.py:LINE in hang
seen.wait()
""",
    "tls": """\
ssl=: TLSv1.3, localhost secret
start_tls: TLSv1.3, localhost secret
""",
}

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not support.OURS, reason="the examples are of tokioloop"),
]


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """Run an example by the command that it names."""
    command = [sys.executable, "-W", "always::ResourceWarning"]
    command += ["-m", "tokioloop"] if path.stem in BY_COMMAND else []
    return subprocess.run(
        [*command, str(path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=support.environment(),
        check=False,
    )


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_ends_by_itself_and_prints_what_it_should(name: str) -> None:
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    done = run(EXAMPLES / f"{name}.py")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert re.sub(r"\.py:\d+ in", ".py:LINE in", done.stdout) == PRINTS[name]


def test_each_example_is_run_here_and_listed_in_the_readme() -> None:
    names = {path.stem for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    assert names == set(PRINTS)
    listed = re.findall(r"\]\(examples/(\w+)\.py\)", README.read_text("utf-8"))
    assert sorted(listed) == sorted(names)


@pytest.mark.parametrize("name", sorted(PRINTS))
def test_an_example_tells_how_it_is_run(name: str) -> None:
    command = f"python {'-m tokioloop ' if name in BY_COMMAND else ''}examples/{name}.py"
    lines = (EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()
    assert command in lines
    assert [line for line in lines if line.startswith("pip install")] == (
        [f"pip install {' '.join(NEEDS[name])}"] if name in NEEDS else []
    )


def test_the_program_in_the_readme_serves_until_ctrl_c(tmp_path: Path) -> None:
    found = re.search(r"```python\n(import asyncio\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert found[1].count("8888") == 1
    (tmp_path / "app.py").write_text(found[1].replace("8888", str(port)), encoding="utf-8")
    connection: list[socket.socket] = []

    def connected() -> bool:
        try:
            connection.append(socket.create_connection(("127.0.0.1", port), support.TIMEOUT))
        except ConnectionRefusedError:
            return False  # not listening yet
        return True

    with Program(sys.executable, str(tmp_path / "app.py")) as server:
        assert support.wait_until(connected), server.output
        with connection[0] as peer, peer.makefile("rb") as answers:
            peer.sendall(b"hello\n")
            assert answers.readline() == b"hello\n"
            peer.shutdown(socket.SHUT_WR)
            assert answers.read() == b""
        assert server.end(signal.SIGINT) != 0
        assert "KeyboardInterrupt" in server.output
