"""Datagrams in and out: boundaries, order, sizes, addresses, types."""

from __future__ import annotations

import array
import asyncio
import contextvars
import os
import socket
import threading

import pytest

from .._kit import clause, peers, timing
from .._kit.contracts.stream import aside, turns
from .recording import LOCALHOST, Datagrams, endpoint, far_end, name_of, numbered, receive

LARGEST = 65507  # 65535 without the headers of IPv4 and UDP


@clause("udp.receive.data-and-address")
def test_a_datagram_is_bytes_with_the_address_it_came_from(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            far.sendto(b"data", name_of(protocol))
            await protocol.got(1)
            return protocol.received

    with far_end() as far:
        ((data, source),) = run(main(far))
        assert type(data) is bytes
        assert data == b"data"
        assert source == far.getsockname()


@clause("udp.receive.waits")
def test_an_idle_endpoint_waits_for_a_datagram_that_comes_late(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            late = threading.Timer(0.2, far.sendto, (b"late", name_of(protocol)))  # clause-delay
            late.start()
            await protocol.got(1)
            late.join()
            return protocol.data, protocol.calls

    with far_end() as far:
        assert run(main(far)) == ([b"late"], ["connection_made", "datagram_received"])


@clause("udp.receive.found-by-the-next-iteration")
@pytest.mark.parametrize("turns_before", [0, 1, 7, 20])
def test_a_datagram_is_received_in_the_turn_behind_the_one_it_came_in(loop, run, turns_before):
    async def main():
        ours, theirs = peers.unix_pair(socket.SOCK_DGRAM)
        with theirs:
            ours.setblocking(False)
            theirs.send(b"first")
            await turns(turns_before)
            async with endpoint(loop, sock=ours) as protocol:
                took = [await timing.turns_until(lambda: protocol.data) + 1]
                await turns(turns_before)
                theirs.send(b"second")
                took.append(await timing.turns_until(lambda: len(protocol.data) == 2))
                return took

    assert max(run(main())) <= 2


@clause("udp.receive.boundaries")
def test_each_datagram_is_delivered_by_itself_and_in_order(loop, run):
    """All of them wait when the loop looks first."""
    sent = [numbered(number, 6 + number % 50) for number in range(150)]

    async def main(far):
        async with endpoint(loop) as protocol:
            for data in sent:
                far.sendto(data, name_of(protocol))
            await protocol.got(len(sent))
            await turns()
            return protocol.data

    with far_end() as far:
        assert run(main(far)) == sent


@clause("udp.receive.boundaries")
def test_datagrams_that_come_while_others_are_delivered_are_not_lost(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            name = name_of(protocol)

            def send_more(data, _):
                if 10 < len(data) < 20:
                    far.sendto(data + b"a", name)
                    far.sendto(b"", name)

            protocol.hooks["datagram_received"] = send_more
            far.sendto(b"a" * 11, name)
            far.sendto(b"a" * 12, name)
            await protocol.until(lambda: protocol.data.count(b"a" * 20) == 2)
            return sum(1 for data in protocol.data if data)

    with far_end() as far:
        assert run(main(far)) == 10 + 9


@clause("udp.receive.empty")
@pytest.mark.parametrize("connected", [False, True])
def test_an_empty_datagram_is_received_as_empty_bytes(loop, run, connected):
    async def main(far):
        sock = far_end()
        if connected:
            sock.connect(far.getsockname())
        async with endpoint(loop, sock=sock) as protocol:
            for data in (b"", b"1", b"", b"", b"2"):
                far.sendto(data, name_of(protocol))
            await protocol.got(5)
            await turns()
            far.sendto(b"", name_of(protocol))
            await protocol.got(6)
            return protocol.received, protocol.calls

    with far_end() as far:
        received, calls = run(main(far))
        assert received == [(data, far.getsockname()) for data in (b"", b"1", b"", b"", b"2", b"")]
        assert calls == ["connection_made"] + ["datagram_received"] * 6  # an empty one is no end


@clause("udp.receive.largest")
@pytest.mark.parametrize("size", [1, 1472, 1473, 8192, 9217, 65506, LARGEST])
def test_datagrams_of_every_size_up_to_the_largest_go_both_ways_whole(loop, run, size):
    blob = os.urandom(size)

    async def main(far):
        async with endpoint(loop) as protocol:
            far.sendto(blob, name_of(protocol))
            await protocol.got(1)
            protocol.transport.sendto(blob[::-1], far.getsockname())
            return protocol.data, await aside(far.recv, 70000)

    with far_end() as far:
        assert run(main(far)) == ([blob], blob[::-1])


@clause("udp.receive.largest")
def test_large_and_small_datagrams_mix(loop, run):
    """Room for the next is not what the last one left."""
    sent = [numbered(number, size) for number, size in enumerate([10, 60000, 6, 50000, 7, 40000, 6])]

    async def main(far):
        sock = far_end()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        async with endpoint(loop, sock=sock) as protocol:
            for data in sent:
                far.sendto(data, name_of(protocol))
                if len(data) > 10_000:
                    await protocol.until(lambda data=data: data in protocol.data)
            await protocol.got(len(sent))
            return protocol.data

    with far_end() as far:
        assert run(main(far)) == sent


@clause("udp.receive.kept-data")
def test_what_was_received_stays_as_it_was(loop, run):
    """A loop that receives into a buffer of its own hands out copies."""

    async def main(far):
        async with endpoint(loop) as protocol:
            for number in range(300):
                far.sendto(numbered(number, 40), name_of(protocol))
                if number % 10 == 9:
                    await protocol.got(number + 1)
            return protocol.data

    with far_end() as far:
        assert run(main(far)) == [numbered(number, 40) for number in range(300)]


@clause("udp.receive.callback-raises")
def test_an_exception_in_datagram_received_is_reported_and_the_endpoint_goes_on(loop, run, errors):
    class CallbackError(Exception):
        pass

    def fail(data, _):
        if data == b"bad":
            raise CallbackError(data)

    async def main(far):
        async with endpoint(loop, Datagrams(loop, datagram_received=fail), local_addr=(LOCALHOST, 0)) as protocol:
            for data in (b"1", b"bad", b"2", b"bad", b"3"):
                far.sendto(data, name_of(protocol))
            await protocol.got(5)
            await turns()
            return protocol.data, protocol.calls

    with far_end() as far:
        data, calls = run(main(far))
    assert data == [b"1", b"bad", b"2", b"bad", b"3"]
    assert calls == ["connection_made"] + ["datagram_received"] * 5
    contexts = errors.take()
    assert [type(context["exception"]) for context in contexts] == [CallbackError, CallbackError]
    assert all(context["message"] for context in contexts)


@clause("udp.receive.interrupts-pass-through")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_datagram_received_comes_out_of_run_forever(loop, run, interrupt):
    def fail(data, _):
        if data == b"interrupt":
            raise interrupt

    protocol = Datagrams(loop, datagram_received=fail)
    transport, _ = run(loop.create_datagram_endpoint(lambda: protocol, local_addr=(LOCALHOST, 0)))
    with far_end() as far:
        far.sendto(b"interrupt", name_of(protocol))
        far.sendto(b"behind it", name_of(protocol))
        with pytest.raises(interrupt):
            loop.run_forever()
        run(protocol.got(2))
    transport.close()
    run(protocol.lost)
    assert protocol.data == [b"interrupt", b"behind it"]


@clause("udp.receive.set-protocol")
def test_another_protocol_gets_what_comes_after_set_protocol(loop, run):
    async def main(far):
        second = Datagrams(loop)

        def change(*_):
            first.transport.set_protocol(second)

        first = Datagrams(loop, datagram_received=change)
        transport, _ = await loop.create_datagram_endpoint(lambda: first, local_addr=(LOCALHOST, 0))
        for data in (b"first", b"second", b"third"):
            far.sendto(data, name_of(first))
        await second.got(2)
        protocol = transport.get_protocol()
        transport.close()
        await second.lost
        return first.data, second.data, protocol is second, first.calls, second.calls

    with far_end() as far:
        first, second, is_second, first_calls, second_calls = run(main(far))
    assert (first, second, is_second) == ([b"first"], [b"second", b"third"], True)
    assert first_calls == ["connection_made", "datagram_received"]
    assert second_calls == ["datagram_received", "datagram_received", "connection_lost"]


@clause("udp.receive.pause")
def test_pause_reading_holds_datagrams_back_until_resume_reading(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            transport = protocol.transport
            protocol.hooks["datagram_received"] = lambda data, _: data == b"pause" and transport.pause_reading()
            for data in (b"pause", b"1", b"2", b""):
                far.sendto(data, name_of(protocol))
            await protocol.got(1)
            await turns(20)
            paused = protocol.data
            transport.resume_reading()
            await protocol.got(4)
            return paused, protocol.data

    with far_end() as far:
        assert run(main(far)) == ([b"pause"], [b"pause", b"1", b"2", b""])


@clause("udp.receive.context")
def test_callbacks_see_the_context_of_the_moment_the_endpoint_was_created(loop, run):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def main(far):
        def note(*_):
            seen.append(variable.get())

        variable.set("at creation")
        protocol = Datagrams(loop, connection_made=note, datagram_received=note)
        async with endpoint(loop, protocol, local_addr=(LOCALHOST, 0)):
            variable.set("later")
            far.sendto(b"x", name_of(protocol))
            await protocol.got(1)

    with far_end() as far:
        run(main(far))
    assert seen == ["at creation", "at creation"]


@clause("udp.receive.connection-made-raises")
def test_an_exception_in_connection_made_is_reported_and_the_endpoint_goes_on(loop, run, errors):
    class MadeError(Exception):
        pass

    def fail(_):
        raise MadeError

    async def main(far):
        async with endpoint(loop, Datagrams(loop, connection_made=fail), local_addr=(LOCALHOST, 0)) as protocol:
            far.sendto(b"x", name_of(protocol))
            await protocol.got(1)
            return protocol.data

    with far_end() as far:
        assert run(main(far)) == [b"x"]
    assert isinstance(errors.only()["exception"], MadeError)


@clause("udp.send.address")
def test_an_endpoint_without_a_remote_address_sends_to_any_address(loop, run):
    async def main(one, other):
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(b"one", one.getsockname())
            protocol.transport.sendto(b"other", addr=other.getsockname())
            got = await aside(one.recvfrom, 100), await aside(other.recvfrom, 100)
            return got, name_of(protocol)

    with far_end() as one, far_end() as other:
        got, ours = run(main(one, other))
    assert got == ((b"one", ours), (b"other", ours))


@clause("udp.send.own-address")
def test_a_connected_endpoint_takes_its_remote_address_or_none_and_no_other(loop, run):
    async def main(far):
        there = far.getsockname()
        async with endpoint(loop, remote_addr=there) as protocol:
            protocol.transport.sendto(b"1")
            protocol.transport.sendto(b"2", None)
            protocol.transport.sendto(b"3", there)
            for other in ((LOCALHOST, there[1] ^ 1), ("127.0.0.2", there[1])):
                with pytest.raises(ValueError):
                    protocol.transport.sendto(b"x", other)
            protocol.transport.sendto(b"4")
            return await aside(receive, far, 4), protocol.calls

    with far_end() as far:
        assert run(main(far)) == ([b"1", b"2", b"3", b"4"], ["connection_made"])


@clause("udp.send.host-name")
def test_a_host_name_in_the_address_is_resolved(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(b"by name", ("localhost", far.getsockname()[1]))
            return await aside(far.recv, 100)

    with far_end() as far:
        assert run(main(far)) == b"by name"


@clause("udp.send.types")
@pytest.mark.parametrize(
    "data",
    [
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"memoryview"),
        memoryview(bytearray(b"-part-of-it-"))[1:-1],
        memoryview(array.array("I", [1, 2, 3])),
    ],
    ids=["bytes", "bytearray", "memoryview", "slice", "wide"],
)
def test_bytes_bytearrays_and_memoryviews_are_sent(loop, run, data):
    async def main(far):
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(data, far.getsockname())
            return await aside(far.recv, 100)

    with far_end() as far:
        assert run(main(far)) == bytes(data)


@clause("udp.send.other-types")
@pytest.mark.parametrize("data", ["text", 7, None, [b"x"], object()], ids=lambda data: type(data).__name__)
def test_other_types_raise_type_error_and_change_nothing(loop, run, data):
    async def main(far):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            with pytest.raises(TypeError):
                protocol.transport.sendto(data)
            protocol.transport.sendto(b"fine")
            return await aside(far.recv, 100), protocol.calls

    with far_end() as far:
        assert run(main(far)) == (b"fine", ["connection_made"])


@clause("udp.send.empty")
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")], ids=lambda empty: type(empty).__name__)
def test_an_empty_datagram_is_sent(loop, run, connected, empty):
    async def main(far):
        arguments = {"remote_addr": far.getsockname()} if connected else {"local_addr": (LOCALHOST, 0)}
        async with endpoint(loop, **arguments) as protocol:
            for data in (empty, b"1", empty):
                protocol.transport.sendto(data, far.getsockname())
            return await aside(receive, far, 3)

    with far_end() as far:
        assert run(main(far)) == [b"", b"1", b""]


@clause("udp.send.order")
def test_datagrams_are_sent_in_order_each_by_itself(loop, run):
    sent = [numbered(number, 6 + number % 50) for number in range(150)]

    async def main(far):
        async with endpoint(loop) as protocol:
            for data in sent:
                protocol.transport.sendto(data, far.getsockname())
            return await aside(receive, far, len(sent))

    with far_end() as far:
        assert run(main(far)) == sent


@clause("udp.send.order")
def test_datagrams_for_several_addresses_reach_theirs_in_order(loop, run):
    async def main(fars):
        async with endpoint(loop) as protocol:
            for number in range(60):
                protocol.transport.sendto(b"%d" % number, fars[number % 3].getsockname())
            return [await aside(receive, far, 20) for far in fars]

    with far_end() as a, far_end() as b, far_end() as c:
        got = run(main([a, b, c]))
    assert got == [[b"%d" % number for number in range(start, 60, 3)] for start in range(3)]


@clause("udp.send.buffer-free")
def test_the_callers_buffer_may_be_changed_after_sendto(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            buffer = bytearray(b"before")
            for _ in range(5):
                buffer[:] = b"before"
                protocol.transport.sendto(buffer, far.getsockname())
                buffer[:] = b"after!"
            buffer.clear()  # BufferError if a view of it were kept
            return await aside(receive, far, 5)

    with far_end() as far:
        assert run(main(far)) == [b"before"] * 5


@clause("udp.send.bad-address")
@pytest.mark.parametrize(
    "address",
    [None, LOCALHOST, (LOCALHOST,), (LOCALHOST, 70000), 7, ("host with spaces", 9)],
    ids=repr,
)
def test_an_address_that_cannot_be_does_not_go_unnoticed(loop, run, errors, address, saw):
    async def main():
        protocol = Datagrams(loop)
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(LOCALHOST, 0))
        noticed = []
        try:
            transport.sendto(b"x", address)
        except (TypeError, ValueError, OverflowError, OSError) as error:
            noticed.append(error)
            saw("udp.send.bad-address", "sendto() raises")
        else:
            await protocol.until(lambda: protocol.failures or protocol.lost.done())
            noticed += protocol.failures
            if protocol.failures:
                saw("udp.send.bad-address", "error_received() is told")
            else:
                saw("udp.send.bad-address", "the exception handler and connection_lost() are told")
        transport.abort()
        noticed.append(await protocol.lost)
        return [error for error in noticed if error is not None]

    noticed = run(main())
    noticed += [context["exception"] for context in errors.take()]
    assert noticed
    assert all(isinstance(error, (TypeError, ValueError, OverflowError, OSError)) for error in noticed)


@clause("udp.send.from-callbacks")
def test_sendto_within_callbacks_is_sent(loop, run):
    async def main(far):
        async with endpoint(loop, Datagrams(loop), local_addr=(LOCALHOST, 0)) as echo:
            echo.hooks["datagram_received"] = echo.transport.sendto
            for number in range(50):
                far.sendto(b"%d" % number, name_of(echo))
            return await aside(receive, far, 50)

    def greet(transport):
        transport.sendto(b"hello")

    async def greeting(far):
        async with endpoint(loop, Datagrams(loop, connection_made=greet), remote_addr=far.getsockname()):
            return await aside(far.recv, 100)

    with far_end() as far:
        assert run(main(far)) == [b"%d" % number for number in range(50)]
        assert run(greeting(far)) == b"hello"


@clause("udp.send.both-ends-in-one-loop")
def test_two_endpoints_of_one_loop_play_ping_pong(loop, run):
    async def main():
        async with endpoint(loop) as server, endpoint(loop, remote_addr=name_of(server)) as client:
            server.hooks["datagram_received"] = server.transport.sendto

            def count_down(data, _):
                if int(data):
                    client.transport.sendto(b"%d" % (int(data) - 1))

            client.hooks["datagram_received"] = count_down
            client.transport.sendto(b"1000")
            await client.got(1001)
            return [int(data) for data in client.data]

    assert run(main()) == list(range(1000, -1, -1))


@clause("udp.send.to-itself")
def test_an_endpoint_may_send_to_itself(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(b"me", name_of(protocol))
            await protocol.got(1)
            return protocol.received == [(b"me", name_of(protocol))]

    assert run(main())


@clause("udp.info.addresses")
def test_extra_info_has_the_addresses_and_a_default_for_what_is_unknown(loop, run):
    async def main(far):
        async with endpoint(loop) as free, endpoint(loop, remote_addr=far.getsockname()) as connected:
            for protocol in (free, connected):
                transport = protocol.transport
                sock = transport.get_extra_info("socket")
                assert transport.get_extra_info("sockname") == sock.getsockname()
                assert transport.get_extra_info("no such thing") is None
                assert transport.get_extra_info("no such thing", "default") == "default"
            facts = free.transport.get_extra_info("peername"), connected.transport.get_extra_info("peername")
        return facts, name_of(free)[0]  # it is known after the end too

    with far_end() as far:
        assert run(main(far)) == ((None, far.getsockname()), LOCALHOST)


@clause("udp.info.real-socket")
def test_the_extra_info_socket_is_the_endpoint_itself(loop, run):
    async def main():
        sock = far_end()
        fd = sock.fileno()
        async with endpoint(loop, sock=sock) as protocol:
            info = protocol.transport.get_extra_info("socket")
            info.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            return info.fileno() == fd, info.type, sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) > 0

    assert run(main()) == (True, socket.SOCK_DGRAM, True)


@clause("udp.info.get-protocol")
def test_get_protocol_is_the_protocol(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            return protocol.transport.get_protocol() is protocol

    assert run(main())


@clause("udp.receive.many-peers")
def test_many_peers_are_answered_at_once(loop, run):
    def ask(address, name):
        with far_end() as sock:
            answers = []
            for number in range(20):
                sock.sendto(b"%s-%d" % (name, number), address)
                answers.append(sock.recv(100))
            return answers == [b"%s-%d" % (name, number) for number in range(20)]

    async def main():
        async with endpoint(loop) as echo:
            echo.hooks["datagram_received"] = echo.transport.sendto
            return await asyncio.gather(*(aside(ask, name_of(echo), b"%d" % number) for number in range(20)))

    assert all(run(main()))


@clause("udp.create.unix")
def test_the_sender_of_a_nameless_unix_socket_has_no_address(loop, run):
    async def main():
        ours, theirs = peers.unix_pair(socket.SOCK_DGRAM)
        with theirs:
            async with endpoint(loop, sock=ours) as protocol:
                theirs.send(b"who am I")
                theirs.send(b"")
                await protocol.got(2)
                return protocol.data, [bool(source) for _, source in protocol.received]

    assert run(main()) == ([b"who am I", b""], [False, False])
