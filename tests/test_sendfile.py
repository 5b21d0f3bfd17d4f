"""sendfile goes through `sendfile(2)`, a bounded part of the file in each turn, and a small file in one step."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


class Waits:
    """Awaited where the socket has no room."""

    def __await__(self) -> Iterator[str]:
        yield "room"


answers = st.one_of(st.integers(1, 3 * (1 << 18)), st.just("full"), st.sampled_from(["reset", "refused"]))


@settings(max_examples=400, deadline=None)
@given(
    size=st.integers(0, 1 << 21),
    offset=st.integers(0, 1000),
    count=st.one_of(st.none(), st.integers(1, 1 << 21)),
    script=st.lists(answers, max_size=20),
    cancelled=st.integers(0, 12),
)
def test_whatever_the_kernel_takes_a_turn_sends_no_more_than_its_part_and_the_position_is_right(
    size: int, offset: int, count: int | None, script: list[Any], cancelled: int
) -> None:
    from tokioloop.sendfile import PER_TURN, _send

    asked = sent = in_turn = 0
    failure: OSError | None = None

    def fileno() -> int:
        nonlocal asked
        asked += 1
        return 99

    def sendfile(out: int, _file: int, at: int, wanted: int) -> int:
        nonlocal asked, sent, in_turn, failure
        assert (out, asked, at) == (99, 1, offset + sent), "the socket is asked for its number before each call"
        assert wanted <= PER_TURN - in_turn and (count is None or wanted <= count - sent)
        asked = 0
        match script.pop(0) if script else wanted:
            case "full":
                raise BlockingIOError
            case "reset":
                failure = ConnectionResetError()
                raise failure
            case "refused":
                failure = OSError(errno.EINVAL, "cannot be mapped")
                raise failure
            case takes:
                n = max(min(takes, wanted, size - offset - sent), 0)
                sent += n
                in_turn += n
                return n

    with tempfile.TemporaryFile() as file, mock.patch("os.sendfile", sendfile):
        file.truncate(size)
        file.seek(7)
        sending = _send(file, offset, count, fileno, Waits)
        outcome: Any = None
        try:
            for _ in range(cancelled):
                waits = sending.send(None)
                assert waits == "room" or in_turn == PER_TURN, "a turn is given up where its part is sent"
                in_turn = 0
            sending.throw(asyncio.CancelledError)
        except StopIteration as stop:
            outcome = stop.value
        except (OSError, asyncio.CancelledError, asyncio.SendfileNotAvailableError) as error:
            outcome = error
        left_at = offset + sent if sent else 7
        match outcome:
            case int():
                limit = max(size - offset, 0)
                assert outcome == sent == (limit if count is None else min(limit, count))
                assert not failure
                left_at = offset + sent if size or count is not None else 7
            case asyncio.SendfileNotAvailableError():
                assert failure and not sent
            case OSError():
                assert outcome is failure
                assert sent or isinstance(failure, ConnectionError)
            case _:
                assert not failure
        assert file.tell() == left_at
