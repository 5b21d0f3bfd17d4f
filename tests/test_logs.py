"""`RUST_LOG=debug` shows the life of every connection on standard error, with its fd; unset, nothing is said."""

from __future__ import annotations

import re

import pytest

from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="these logs are tokioloop's"),
]

PROGRAM = """
import asyncio, os, sys
from tests import support
from spec._kit import peers

class Protocol(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
    def connection_made(self, transport):
        self.transport = transport
        print(transport.get_extra_info("socket").fileno(), flush=True)
    def eof_received(self):
        return True
    def connection_lost(self, exc):
        self.lost.set_result(None)

async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = peers.pair()
    _, protocol = await loop.create_connection(Protocol, sock=ours)
    protocol.transport.write(bytes(20_000_000))  # more than any socket buffer: paused
    def drain():
        received = 0
        while received < 20_000_000:
            received += len(theirs.recv(1 << 20))
        theirs.shutdown(1)
    await loop.run_in_executor(None, drain)
    while protocol.transport.is_reading() and not protocol.transport.get_write_buffer_size() == 0:
        await asyncio.sleep(0)
    if sys.argv[1:] == ["reset"]:
        peers.reset(theirs)
    await asyncio.sleep(0.05)  # clause-delay: the peer's end arrives
    protocol.transport.close()
    await protocol.lost
    theirs.close()

with asyncio.Runner(loop_factory=support.factory()) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("value", ["debug", "trace", "tokioloop=debug", "tokio=info,tokioloop=debug"])
def test_rust_log_shows_a_connection_made_paused_resumed_ended_and_lost(value: str) -> None:
    done = support.python(PROGRAM, RUST_LOG=value)
    assert done.returncode == 0, done.stderr
    fd = done.stdout.strip()
    told = [line for line in done.stderr.splitlines() if re.search(rf"\bfd={fd}\b", line)]
    assert all(line.startswith("DEBUG tokioloop: ") for line in done.stderr.splitlines()), done.stderr
    events = [line.removeprefix("DEBUG tokioloop: ").partition(" ")[0] for line in told]
    assert events[0] == "made", told
    assert events[-1] == "lost", told
    assert sorted(events) == ["eof", "lost", "made", "paused", "resumed"], told
    assert events.index("paused") < events.index("resumed")


@pytest.mark.parametrize("value", [None, "", "info", "warn", "off", "tokio=debug"])
def test_nothing_is_said_without_it(value: str | None) -> None:
    done = support.python(PROGRAM, **({} if value is None else {"RUST_LOG": value}))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_listener_is_shown_too() -> None:
    done = support.python(
        """
        import asyncio
        from tests import support
        async def main():
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            print(server.sockets[0].fileno(), flush=True)
            server.close()
        with asyncio.Runner(loop_factory=support.factory()) as runner:
            runner.run(main())
        """,
        RUST_LOG="debug",
    )
    assert done.returncode == 0, done.stderr
    assert f"DEBUG tokioloop: listening fd={done.stdout.strip()}\n" in done.stderr
