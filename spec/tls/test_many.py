"""Many connections, half of which break off at random points: each is made and lost once, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from .._kit import clause, peers
from .._kit.contracts.stream import aside, turns
from . import certificates, storm
from .helpers import open_files

COUNT = 200


class Counting(asyncio.Protocol):
    """Echoes, and notes how it was called."""

    def __init__(self, made):
        self.calls = []
        made.append(self)

    def connection_made(self, transport):
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data):
        self.calls.append("data")
        self.transport.write(data)

    def connection_lost(self, exc):
        self.calls.append("lost")
        self.reason = exc


@clause("tls.many.broken-off-clients")
@pytest.mark.timeout(60)
def test_half_of_the_clients_break_off_and_nothing_is_left(loop, run, errors, dice):
    made = []
    plans = storm.plans(dice, COUNT)

    async def main():
        server = await loop.create_server(lambda: Counting(made), "127.0.0.1", 0, ssl=certificates.server())
        addr = server.sockets[0].getsockname()
        await aside(storm.call, addr, certificates.client(), storm.Plan(None, False))  # opens what a loop keeps open
        await _settled(made)
        files, tasks = open_files(), len(asyncio.all_tasks())
        made.clear()
        whole = await aside(storm.clients, addr, plans)
        await _settled(made)
        while open_files() > files:  # what broke off in its handshake is not told to any protocol
            await asyncio.sleep(0)
        left = open_files() - files, len(asyncio.all_tasks()) - tasks
        server.close()
        await server.wait_closed()
        return whole, left

    whole, left = run(main())
    assert whole == COUNT // 2
    assert left == (0, 0)
    established = [protocol for protocol in made if protocol.calls]
    assert whole <= len(established) <= COUNT
    for protocol in established:
        assert protocol.calls[0] == "made"
        assert protocol.calls[-1] == "lost"
        assert protocol.calls.count("made") == protocol.calls.count("lost") == 1
        assert isinstance(protocol.reason, (OSError, type(None)))
    assert sum(protocol.reason is None for protocol in established) >= whole
    gc.collect()
    assert errors.take() == []


@clause("tls.many.broken-off-servers")
@pytest.mark.timeout(60)
def test_half_of_the_servers_break_off_and_each_connection_is_made_or_raises(loop, run, errors, dice):
    plans = storm.plans(dice, COUNT // 2)
    remaining = iter(plans)
    whole = []
    context = certificates.server()

    def talk(conn):
        whole.append(storm.follow(conn, context, next(remaining), server_side=True))

    async def one(addr, ours):
        made = []
        try:
            _, protocol = await loop.create_connection(
                lambda: Caller(made), *addr[:2], ssl=ours, server_hostname=certificates.NAME, family=socket.AF_INET
            )
        except OSError as error:
            return type(error), [protocol.calls for protocol in made]
        await protocol.ended
        return None, [protocol.calls for protocol in made]

    class Caller(Counting):
        def __init__(self, made):
            super().__init__(made)
            self.ended = loop.create_future()

        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(storm.MESSAGE)

        def data_received(self, data):
            self.calls.append("data")

        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.ended.set_result(exc)

    async def main(addr):
        ours = certificates.client()
        files = open_files()
        results = []
        for _ in range(0, len(plans), 10):
            results += await asyncio.gather(*(one(addr, ours) for _ in range(10)))
        while open_files() > files + 1:  # the peers' ends of these
            await turns(10)
        return results

    with peers.serve(talk) as addr:
        results = run(main(addr))
    assert len(whole) == len(results) == len(plans)
    assert sum(whole) == len(plans) // 2
    made = [calls for error, calls in results if error is None]
    assert len(made) >= sum(whole)
    for (calls,) in made:
        assert calls[0] == "made"
        assert calls[-1] == "lost"
        assert calls.count("made") == calls.count("lost") == 1
    for error, calls in results:
        # A protocol of a handshake that failed was made, and is never told anything.
        assert error is None or calls in ([], [[]]), calls
    gc.collect()
    assert errors.take() == []


async def _settled(made):
    """Wait until every connection that was made is lost."""
    while any(protocol.calls[:1] == ["made"] and protocol.calls[-1] != "lost" for protocol in made):
        await asyncio.sleep(0)
    await turns(5)
