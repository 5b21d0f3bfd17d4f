"""10,000 connections opened, echoed and closed leave nothing behind: no descriptor, no object, no memory."""

from __future__ import annotations

import json
import re
import resource
import socket
import sys
from typing import Any

import pytest

from tests import support
from tests.support import Program

CONNECTIONS = 10_000
WAVE = 2_000
"""Connections open at once, where the limit on descriptors allows."""
SPARE = 500
"""Descriptors that each process needs besides its connections."""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def raise_limit() -> int:
    """Let this process and its children open as many descriptors as they may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft


def exchange(port: int, count: int) -> None:
    """Open `count` connections, all at once, echo some bytes on each, and close them."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 15)
            socks.append(sock)  # one by one: those made are closed if the next fails
        for number, sock in enumerate(socks):
            sock.sendall(b"%d " % number * (1 + number % 50))
        for number, sock in enumerate(socks):
            expected = b"%d " % number * (1 + number % 50)
            got = b""
            while len(got) < len(expected):
                chunk = sock.recv(4096)
                assert chunk, f"connection {number} ended after {got!r}"
                got += chunk
            assert got == expected, f"connection {number} got {got!r}"
    finally:
        for sock in socks:
            sock.close()


def settled(server: Program) -> dict[str, Any]:
    """The server's report once every connection made is lost."""
    report: dict[str, Any] = {}

    def all_lost() -> bool:
        report.update(json.loads(server.answer("report")))
        return bool(report["made"] == report["lost"])

    assert support.wait_until(all_lost), report
    return report


@linux
@pytest.mark.timeout(120)
def test_ten_thousand_connections_leave_no_descriptor_no_object_and_no_memory() -> None:
    wave = min(WAVE, raise_limit() - SPARE)
    with Program(sys.executable, "-m", "tests.apps.counting_echo") as server:
        server.wait_for(".\n")
        found = re.search(r"port (\d+)\.", server.output)
        assert found is not None
        port = int(found[1])
        cold = settled(server)
        # The first wave grows tables and heaps to what that many connections at once need; from then on nothing may.
        exchange(port, wave)
        before = settled(server)
        for start in range(0, CONNECTIONS, wave):
            exchange(port, min(wave, CONNECTIONS - start))
        after = settled(server)
    assert after["made"] == before["made"] + CONNECTIONS
    assert after["fds"] == before["fds"] == cold["fds"]
    for kind, count in after["alive"].items():
        assert count <= cold["alive"].get(kind, 0), f"{kind}s still alive after gc.collect(): {after['alive']}"
    assert {"Echo"} < after["alive"].keys(), "transports and protocols were counted"
    assert after["rss"] <= before["rss"] * 1.05, (
        f"resident before {before['rss'] >> 10} KiB, after {after['rss'] >> 10} KiB"
    )
