"""Handshakes that the program ends itself: by cancelling whoever waits, or by closing what is below."""

from __future__ import annotations

import asyncio

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from . import certificates
from .helpers import connect, to_the_end
from .test_start_tls import plain, silent, upgrade

TURNS = pytest.mark.parametrize("count", [1, 2, 3, 10], ids="after {} turns".format)


async def once(loop, coroutine, count):
    """A task that is cancelled after `count` iterations; it raises CancelledError, and nothing else."""
    task = loop.create_task(coroutine)
    await turns(count)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@clause("tls.cancel.create-connection", "tls.failure.no-callback")
@TURNS
def test_whoever_gives_a_connection_up_in_its_handshake_closes_it(loop, run, count):
    """The peer sees the end; the test would fail for what is left."""
    protocol = Recorder(loop)

    async def main():
        ours, theirs = peers.pair()
        waiting = loop.create_task(aside(to_the_end, theirs))
        options = {"ssl": certificates.client(), "server_hostname": certificates.NAME}
        await once(loop, loop.create_connection(lambda: protocol, sock=ours, **options), count)
        await waiting
        theirs.close()

    run(main())
    assert protocol.calls == []


@clause("tls.cancel.create-connection")
def test_a_time_out_around_create_connection_ends_the_handshake(loop, run):
    protocol = Recorder(loop)

    async def main(addr):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connect(loop, addr, protocol)

    with peers.serve(to_the_end) as addr:
        run(main(addr))
    assert protocol.calls == []


@clause("tls.cancel.connect-accepted-socket", "tls.failure.no-callback")
@TURNS
def test_whoever_gives_an_accepted_socket_up_in_its_handshake_closes_it(loop, run, count):
    protocol = Recorder(loop)

    async def main():
        ours, theirs = peers.pair()
        waiting = loop.create_task(aside(to_the_end, theirs))
        await once(loop, loop.connect_accepted_socket(lambda: protocol, ours, ssl=certificates.server()), count)
        await waiting
        theirs.close()

    run(main())
    assert protocol.calls == []


@clause("tls.cancel.start-tls")
@TURNS
@pytest.mark.parametrize("server_side", [True, False], ids=["server", "client"])
def test_whoever_gives_start_tls_up_closes_the_connection(loop, run, count, server_side):
    async def main():
        async with plain(loop, silent) as (transport, protocol, talking):
            await once(loop, upgrade(loop, transport, protocol, server_side=server_side), count)
            closing = transport.is_closing()
            await talking  # it sees the end
            return closing, protocol.calls

    closing, calls = run(main())
    assert closing
    assert "data_received" not in calls


@clause("tls.start-tls.interruption-lost")
def test_the_protocol_loses_the_connection_that_a_cancelled_start_tls_closes(loop, run):
    async def main():
        async with plain(loop, silent) as (transport, protocol, _):
            await once(loop, upgrade(loop, transport, protocol), 5)
            async with asyncio.timeout(1):
                return await protocol.lost

    assert run(main()) is None


METHODS = pytest.mark.parametrize("method", ["close", "abort"])


async def ended(task):
    """How start_tls() comes to an end: with an error, with nothing, or with a transport that is closing. TimeoutError
    where it does not.
    """
    try:
        async with asyncio.timeout(1):
            tls = await task
    except (TimeoutError, NotImplementedError):
        raise
    except (OSError, RuntimeError):
        return "raises an OSError or a RuntimeError"
    assert tls is None or tls.is_closing()
    return "returns None" if tls is None else "returns a transport that is closing"


@clause("tls.start-tls.closed-meanwhile")
@METHODS
def test_start_tls_comes_to_an_end_where_its_connection_is_closed_meanwhile(loop, run, method, saw):
    async def main():
        async with plain(loop, silent) as (transport, protocol, _):
            task = loop.create_task(upgrade(loop, transport, protocol))
            await turns(5)
            getattr(transport, method)()
            return await ended(task)

    saw("tls.start-tls.closed-meanwhile", run(main()))


@clause("tls.start-tls.closed-before")
@METHODS
@pytest.mark.parametrize("lost", [False, True], ids=["closing", "lost"])
def test_start_tls_comes_to_an_end_where_its_connection_was_closed(loop, run, method, lost, saw):
    async def main():
        async with plain(loop, silent) as (transport, protocol, _):
            getattr(transport, method)()
            if lost:
                await protocol.lost
            return await ended(loop.create_task(upgrade(loop, transport, protocol)))

    saw("tls.start-tls.closed-before", run(main()))
