"""A flood of datagrams leaves time for the rest of the loop."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder
from .._kit.contracts.stream import aside, turns
from .recording import LOCALHOST, Datagrams, endpoint, far_end, name_of

IN_FLIGHT = 64


async def flood(protocol):
    """Make an endpoint send a datagram to itself for each that it receives, so that its socket is never empty."""
    protocol.hooks["datagram_received"] = protocol.transport.sendto
    for _ in range(IN_FLIGHT):
        protocol.transport.sendto(b"flood", name_of(protocol))
    await protocol.got(10 * IN_FLIGHT)


def still_flooding(protocol, before):
    return len(protocol.received) > before and set(protocol.data) == {b"flood"}


@clause("udp.fairness.callbacks")
def test_callbacks_run_during_a_flood(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            await flood(protocol)
            before = len(protocol.received)
            await turns(200)
            return still_flooding(protocol, before)

    assert run(main())


@clause("udp.fairness.callbacks")
def test_a_callback_that_is_due_does_not_wait_for_thousands_of_datagrams(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            await flood(protocol)
            counts = []
            for _ in range(50):
                before = len(protocol.received)
                await asyncio.sleep(0)
                counts.append(len(protocol.received) - before)
            return counts

    counts = run(main())
    # Each datagram received is one more to receive: a loop that reads on until there is none never comes to a callback.
    assert max(counts) <= 1000, counts


@clause("udp.fairness.timers")
def test_timers_run_during_a_flood(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            await flood(protocol)
            before, begin = len(protocol.received), loop.time()
            for _ in range(10):
                await asyncio.sleep(0.01)  # clause-delay
            return still_flooding(protocol, before), loop.time() - begin

    flooding, took = run(main())
    assert flooding
    assert took >= 0.1


@clause("udp.fairness.other-endpoints")
def test_other_endpoints_receive_during_a_flood(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol, endpoint(loop, remote_addr=far.getsockname()) as other:
            await flood(protocol)
            before = len(protocol.received)
            for number in range(20):
                other.transport.sendto(b"ping")
                await aside(far.recv, 100)
                far.sendto(b"%d" % number, name_of(other))
                await other.got(number + 1)
            return other.data, still_flooding(protocol, before)

    with far_end() as far:
        assert run(main(far)) == ([b"%d" % number for number in range(20)], True)


@clause("udp.fairness.other-endpoints")
def test_two_floods_both_go_on(loop, run):
    async def main():
        async with endpoint(loop) as one, endpoint(loop) as other:
            await flood(one)
            await flood(other)
            before = len(one.received), len(other.received)
            await one.got(before[0] + 500)
            await other.got(before[1] + 500)

    run(main())


@clause("udp.fairness.streams")
def test_connections_are_served_during_a_flood(loop, run):
    def ask(conn):
        conn.sendall(b"question")
        return peers.recv_exactly(conn, 6)

    async def main():
        async with endpoint(loop) as protocol:
            await flood(protocol)
            served = Recorder(loop)
            served.hooks["data_received"] = lambda _: served.transport.write(b"answer")
            server = await loop.create_server(lambda: served, "127.0.0.1", 0)
            with peers.client(server.sockets[0].getsockname(), ask) as client:
                answer = await aside(client.result)
            server.close()
            await served.lost
            return answer

    assert run(main()) == b"answer"


@clause("udp.fairness.stop")
def test_the_loop_stops_during_a_flood(loop, run):
    async def main():
        protocol = Datagrams(loop)
        await loop.create_datagram_endpoint(lambda: protocol, local_addr=(LOCALHOST, 0))
        await flood(protocol)
        return protocol

    protocol = run(main())
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    before = len(protocol.received)
    protocol.transport.abort()
    run(protocol.lost)
    assert before >= 10 * IN_FLIGHT


@clause("udp.fairness.many-endpoints")
@pytest.mark.timeout(60)
def test_hundreds_of_endpoints_are_served_in_one_turn_after_another(loop, run):
    async def main():
        async with endpoint(loop) as server:
            server.hooks["datagram_received"] = server.transport.sendto
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(endpoint(loop, remote_addr=name_of(server))) for _ in range(200)
                ]
                for number in range(5):
                    for client in clients:
                        client.transport.sendto(b"%d" % number)
                    for client in clients:
                        await client.got(number + 1)
                return [client.data for client in clients]

    assert run(main()) == [[b"0", b"1", b"2", b"3", b"4"]] * 200
