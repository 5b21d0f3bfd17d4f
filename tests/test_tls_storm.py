"""5,000 TLS handshakes, half of them broken off at random points, leave no descriptor, no memory and no exception."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from spec.tls import certificates, storm
from tests import support
from tests.support import Program

HANDSHAKES = 5_000
SEED = 20_000
"""Fixed, so that the memory measured is that of the same handshakes each time; the storms of spec/tls draw new ones."""
FIRST = 500
"""Handshakes after which tables and heaps have the sizes that they need."""


def settled(server: Program, fds: int | None = None) -> dict[str, Any]:
    """The server's report once every connection made is lost and it has no more than `fds` files open, if given."""
    report: dict[str, Any] = {}

    def done() -> bool:
        report.update(json.loads(server.answer("report")))
        return report["made"] == report["lost"] and (fds is None or report["fds"] <= fds)

    assert support.wait_until(done), report
    return dict(report)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.timeout(300)
def test_five_thousand_handshakes_half_of_them_broken_off_leave_nothing(tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    pem.write_bytes(certificates.CERTIFICATES["good"].private_key_and_cert_chain_pem.bytes())
    with Program(sys.executable, "-X", "faulthandler", "-m", "tests.apps.tls_storm", str(pem)) as server:
        server.wait_for(".\n")
        found = re.search(r"port (\d+)\.", server.output)
        assert found is not None
        addr = ("127.0.0.1", int(found[1]))
        cold = settled(server)
        assert storm.clients(addr, storm.plans(random.Random(SEED), FIRST)) == FIRST // 2
        before = settled(server, cold["fds"])
        whole = storm.clients(addr, storm.plans(random.Random(SEED + 1), HANDSHAKES))
        after = settled(server, cold["fds"])
    # Peers that kept to the protocol were served, to the last byte and the close_notify.
    assert whole == HANDSHAKES // 2
    # Each connection made was lost, once, and for a reason that a peer can bring about.
    assert whole <= after["made"] - before["made"] <= HANDSHAKES
    assert after["wrong"] == []
    assert set(after["reasons"]) <= {"NoneType", "ConnectionResetError", "BrokenPipeError", "SSLError", "SSLEOFError"}
    assert after["reasons"]["NoneType"] - before["reasons"]["NoneType"] >= whole
    # A peer that breaks off is no fault of the program's: nothing for the exception handler.
    assert after["reported"] == []
    # And nothing is left.
    assert after["fds"] == before["fds"] == cold["fds"]
    assert after["tasks"] == before["tasks"]
    for kind, count in after["alive"].items():
        assert count == 0, f"{kind}s still alive after gc.collect(): {after['alive']}"
    assert {"Echo", "SSLObject"} <= after["alive"].keys(), "protocols and SSL objects were counted"
    assert after["rss"] <= before["rss"] * 1.05 + (1 << 20), (
        f"resident before {before['rss'] >> 10} KiB, after {after['rss'] >> 10} KiB"
    )
