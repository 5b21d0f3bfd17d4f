"""sendfile goes through `sendfile(2)`, a bounded part of the file in each turn, and a small file in one step."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from spec._kit import peers
from spec._kit.contracts.recording import Recorder, pattern
from spec._kit.contracts.stream import aside
from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="how the bytes are sent is the loop's own business"),
]

Make = Callable[[Any, Any], Awaitable[tuple[Callable[[Any], Awaitable[int]], Callable[[], Awaitable[None]]]]]


async def by_sock(loop: Any, sock: Any) -> Any:
    async def close() -> None:
        sock.close()

    return lambda file: loop.sock_sendfile(sock, file), close


async def by_transport(loop: Any, sock: Any) -> Any:
    transport, protocol = await loop.create_connection(lambda: Recorder(loop), sock=sock)

    async def close() -> None:
        transport.close()
        await protocol.lost

    return lambda file: loop.sendfile(transport, file), close


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """How much was asked for and how much was sent by each call of `os.sendfile` that sent any."""
    made: list[tuple[int, int]] = []
    sendfile = os.sendfile

    def recording(out: int, file: int, offset: int, count: int) -> int:
        sent = sendfile(out, file, offset, count)
        made.append((count, sent))
        return sent

    monkeypatch.setattr(os, "sendfile", recording)
    return made


def send(size: int, make: Make) -> int:
    """Send a file of `size` bytes to a peer that reads; how often another callback ran meanwhile."""
    from tokioloop import new_event_loop

    content = pattern(size)
    ours, theirs = peers.pair()
    turns = 0
    going = True

    def count() -> None:
        nonlocal turns
        if going:
            turns += 1
            loop.call_soon(count)

    async def main(file: Any) -> None:
        nonlocal going
        sendfile, close = await make(loop, ours)
        reading = loop.create_task(aside(peers.recv_exactly, theirs, size))
        await asyncio.sleep(0)
        loop.call_soon(count)
        assert await sendfile(file) == size
        going = False
        assert await reading == content
        await close()

    loop = new_event_loop()
    with ours, theirs, tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        loop.run_until_complete(main(file))
    loop.close()
    return turns


@pytest.mark.parametrize("make", [by_sock, by_transport])
def test_a_small_file_is_sent_in_one_step(calls: list[tuple[int, int]], make: Any) -> None:
    assert send(1000, make) == 0
    assert [sent for _, sent in calls] == [1000, 0]


@pytest.mark.parametrize("make", [by_sock, by_transport])
def test_a_turn_sends_a_bounded_part_of_a_large_file(calls: list[tuple[int, int]], make: Any) -> None:
    from tokioloop.sendfile import PER_TURN

    size = 10 * PER_TURN + 1
    assert send(size, make) >= 10
    assert all(asked <= PER_TURN for asked, _ in calls)
    assert sum(sent for _, sent in calls) == size
