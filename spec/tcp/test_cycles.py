"""What connections leave to the garbage collector."""

from __future__ import annotations

import asyncio
import functools

import pytest

from .._kit import clause, cycles, peers


class Ending(asyncio.Protocol):
    """Keeps nothing of its connection."""

    def __init__(self, lost):
        self._lost = lost

    def connection_lost(self, exc):
        self._lost.set_result(exc)


async def connect_and_end(loop, end):
    ours, theirs = peers.pair()
    with theirs:
        lost = loop.create_future()
        transport, _ = await loop.create_connection(functools.partial(Ending, lost), sock=ours)
        (transport if end == "close" else theirs).close()
        assert await lost is None


@clause("tcp.lifetime.no-cycle")
@pytest.mark.parametrize("end", ["close", "peer"])
def test_a_connection_that_ended_in_order_leaves_no_reference_cycle(loop, run, end):
    assert run(cycles.left_by(functools.partial(connect_and_end, loop, end))) == []
