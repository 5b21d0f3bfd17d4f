"""An echo of 1 KiB costs at most 2.2 system calls at 10 connections: a receive, a send and a share of a wait.

Answered by five writes it costs four sends more; with coalescing, none.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from spec._kit import peers
from tests import support
from tests.support import Program

CONNECTIONS = 10
ROUNDS = 400
MESSAGE = b"x" * 1024
LIMIT = 2.2
STARTED = "attached"

strace = shutil.which("strace")
pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(strace is None, reason="strace is not installed"),
    pytest.mark.skipif(not support.OURS, reason="the figure is tokioloop's"),
]


def echo_rounds(socks: list[socket.socket], rounds: int) -> None:
    """All connections at once: send on each, then receive on each."""
    for _ in range(rounds):
        for sock in socks:
            sock.sendall(MESSAGE)
        for sock in socks:
            assert peers.recv_exactly(sock, len(MESSAGE)) == MESSAGE


@pytest.mark.parametrize(
    ("writes", "coalesce", "sends"), [(1, False, 1), (5, False, 5), (5, True, 1)], ids=["one", "five", "coalesced"]
)
def test_an_echo_takes_a_receive_its_sends_and_a_fifth(tmp_path: Path, writes: int, coalesce: bool, sends: int) -> None:
    summary = tmp_path / "summary"
    environment = {"WRITES": str(writes), "TOKIOLOOP_COALESCE": str(int(coalesce))}
    with Program(sys.executable, "-m", "tests.apps.counting_echo", **environment) as server:
        server.wait_for(".\n")
        found = re.search(r"port (\d+)\.", server.output)
        assert found is not None
        socks = [socket.create_connection(("127.0.0.1", int(found[1])), peers.TIMEOUT) for _ in range(CONNECTIONS)]
        try:
            echo_rounds(socks, 5)  # what is done once per connection is not counted
            with Program(str(strace), "-f", "-c", "-o", str(summary), "-p", str(server.pid)) as tracer:
                try:
                    tracer.wait_for(STARTED)
                except AssertionError:
                    pytest.skip(f"strace may not trace here: {tracer.output.strip()}")
                echo_rounds(socks, ROUNDS)
                tracer.end(signal.SIGINT)
        finally:
            for sock in socks:
                sock.close()
    text = summary.read_text()
    calls = {row.split()[-1]: int(row.split()[3]) for row in text.splitlines() if re.match(r"\s*\d+\.\d+\s", row)}
    total = sum(count for name, count in calls.items() if name != "total")
    echoes = CONNECTIONS * ROUNDS
    assert total >= echoes * (1 + sends), f"strace missed calls\n{text}"
    assert total / echoes <= LIMIT - 1 + sends, f"{total / echoes:.2f} system calls per echo\n{text}"
