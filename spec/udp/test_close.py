"""The end of an endpoint: close(), abort(), connection_lost, the descriptor."""

from __future__ import annotations

import functools
import gc
import os
import warnings
import weakref

import pytest

from .._kit import clause
from .._kit.contracts.stream import aside, turns
from .recording import LOCALHOST, Datagrams, endpoint, far_end, fill, filling_pair, name_of, receive

ENDS = pytest.mark.parametrize("end", ["close", "abort"])


@pytest.fixture
def pair():
    with filling_pair() as both:
        yield both


async def opened(loop, **arguments):
    protocol = Datagrams(loop)
    await loop.create_datagram_endpoint(lambda: protocol, **(arguments or {"local_addr": (LOCALHOST, 0)}))
    return protocol


@clause("udp.close.lost-once")
@ENDS
def test_close_and_abort_lead_to_one_connection_lost_with_none(loop, run, end):
    async def main():
        protocol = await opened(loop)
        getattr(protocol.transport, end)()
        reason = await protocol.lost
        await turns(20)
        return reason, protocol.calls

    assert run(main()) == (None, ["connection_made", "connection_lost"])


@clause("udp.close.never-inline")
@ENDS
def test_connection_lost_is_not_called_before_close_returns(loop, run, end):
    async def main():
        protocol = await opened(loop)
        getattr(protocol.transport, end)()
        calls = list(protocol.calls)
        await protocol.lost
        return calls

    assert run(main()) == ["connection_made"]


@clause("udp.close.never-inline")
@ENDS
def test_connection_lost_is_not_called_inside_a_callback_that_closes(loop, run, end):
    async def main(far):
        inside = []
        protocol = await opened(loop)

        def finish(*_):
            getattr(protocol.transport, end)()
            inside.append(protocol.lost.done())

        protocol.hooks["datagram_received"] = finish
        far.sendto(b"x", name_of(protocol))
        await protocol.lost
        return inside

    with far_end() as far:
        assert run(main(far)) == [False]


@clause("udp.close.is-closing")
@ENDS
def test_is_closing_is_true_from_close_on(loop, run, end):
    async def main():
        protocol = await opened(loop)
        answers = [protocol.transport.is_closing()]
        getattr(protocol.transport, end)()
        answers.append(protocol.transport.is_closing())
        await protocol.lost
        answers.append(protocol.transport.is_closing())
        return answers

    assert run(main()) == [False, True, True]


@clause("udp.close.idempotent")
def test_closing_and_aborting_again_does_nothing(loop, run):
    async def main():
        protocol = await opened(loop)
        for _ in range(2):
            protocol.transport.close()
            protocol.transport.abort()
        reason = await protocol.lost
        protocol.transport.close()
        await turns(20)
        return reason, protocol.calls

    assert run(main()) == (None, ["connection_made", "connection_lost"])


@clause("udp.close.sent-before")
def test_what_was_sent_before_close_arrives(loop, run):
    async def main(far):
        protocol = await opened(loop, remote_addr=far.getsockname())
        for number in range(100):
            protocol.transport.sendto(b"%d" % number)
        protocol.transport.close()
        got = await aside(receive, far, 100)
        return got, await protocol.lost

    with far_end() as far:
        assert run(main(far)) == ([b"%d" % number for number in range(100)], None)


@clause("udp.close.flushes")
def test_what_waits_is_sent_before_connection_lost(loop, run, pair):
    async def main(ours, theirs):
        protocol = await opened(loop, sock=ours)
        sent = await fill(protocol.transport)
        for _ in range(20):
            sent.append(b"waits too")
            protocol.transport.sendto(sent[-1])
        protocol.transport.close()
        await turns(50)
        early = protocol.lost.done()  # the peer had not read
        got = await aside(receive, theirs, len(sent))
        return early, got == sent, await protocol.lost

    assert run(main(*pair)) == (False, True, None)


@clause("udp.close.abort-drops")
@pytest.mark.parametrize("closed", [False, True])
def test_abort_drops_what_waits_and_ends_at_once(loop, run, pair, closed):
    async def main(ours, theirs):
        protocol = await opened(loop, sock=ours)
        sent = await fill(protocol.transport)
        protocol.transport.sendto(b"never sent")
        if closed:
            protocol.transport.close()
        protocol.transport.abort()
        size = protocol.transport.get_write_buffer_size()
        reason = await protocol.lost
        theirs.setblocking(False)
        got = []
        with pytest.raises(BlockingIOError):
            while True:
                got.append(theirs.recv(10_000))
        return reason, got == sent[:-1], size, ours.fileno()

    reason, kept, _size, fd = run(main(*pair))
    assert (reason, kept, fd) == (None, True, -1)


@clause("udp.close.errors-while-flushing")
def test_datagrams_that_fail_after_close_are_told_to_error_received_before_connection_lost(loop, run, pair):
    async def main(ours, theirs):
        protocol = await opened(loop, sock=ours)
        await fill(protocol.transport)
        protocol.transport.sendto(b"waits too")
        protocol.transport.close()
        theirs.close()
        return await protocol.lost, protocol.calls

    reason, calls = run(main(*pair))
    assert reason is None
    assert calls == ["connection_made", "error_received", "error_received", "connection_lost"]


@clause("udp.close.nothing-received-after")
@ENDS
def test_nothing_is_received_after_close_though_more_waits(loop, run, end):
    async def main(far):
        protocol = await opened(loop)
        protocol.hooks["datagram_received"] = lambda data, _: data == b"3" and getattr(protocol.transport, end)()
        for number in range(1, 50):
            far.sendto(b"%d" % number, name_of(protocol))
        await protocol.lost
        await turns()
        return protocol.data, protocol.calls[-1]

    with far_end() as far:
        assert run(main(far)) == ([b"1", b"2", b"3"], "connection_lost")


@clause("udp.close.nothing-received-after")
def test_nothing_is_received_while_a_close_sends_what_waits(loop, run, pair):
    async def main(ours, theirs):
        protocol = await opened(loop, sock=ours)
        sent = await fill(protocol.transport)
        protocol.transport.close()
        theirs.send(b"too late")
        await turns(20)
        await aside(receive, theirs, len(sent))
        await protocol.lost
        return protocol.data

    assert run(main(*pair)) == []


@clause("udp.close.sendto-after-connected")
@ENDS
def test_sendto_after_the_end_of_a_connected_endpoint_is_ignored(loop, run, end):
    async def main(far):
        protocol = await opened(loop, remote_addr=far.getsockname())
        getattr(protocol.transport, end)()
        for _ in range(10):
            protocol.transport.sendto(b"late")
        await protocol.lost
        for _ in range(10):
            protocol.transport.sendto(b"too late")
        await turns()
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(100)
        return protocol.calls

    with far_end() as far:
        assert run(main(far)) == ["connection_made", "connection_lost"]


@clause("udp.close.sendto-after")
@ENDS
def test_sendto_after_the_end_of_an_endpoint_raises_nothing_and_reports_nothing(loop, run, end):
    async def main(far):
        protocol = await opened(loop)
        getattr(protocol.transport, end)()
        await protocol.lost
        for _ in range(10):
            protocol.transport.sendto(b"too late", far.getsockname())
        await turns()
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(100)
        return protocol.calls

    with far_end() as far:
        assert run(main(far)) == ["connection_made", "connection_lost"]


@clause("udp.close.releases-the-address")
@ENDS
def test_the_address_is_free_again_after_connection_lost(loop, run, end):
    async def main():
        first = await opened(loop)
        address = name_of(first)
        getattr(first.transport, end)()
        await first.lost
        await turns(1)
        second = await opened(loop, local_addr=address)
        same = name_of(second) == address
        second.transport.close()
        await second.lost
        return same

    assert run(main())


@clause("udp.lifetime.reused-fd")
@pytest.mark.timeout(60)
@ENDS
def test_an_endpoint_on_a_reused_descriptor_gets_nothing_of_the_old_one(loop, run, end):
    """Old ones have unread datagrams and events under way when their descriptor number is reused."""
    rounds = 60

    async def main():
        reused = 0
        for number in range(rounds):
            with far_end() as far:
                old = await opened(loop, remote_addr=far.getsockname())
                fd = old.transport.get_extra_info("socket").fileno()
                old.transport.sendto(b"old")
                for _ in range(5):
                    far.sendto(b"unread", name_of(old))
                getattr(old.transport, end)()
                await old.lost
                await turns(1)
                new = await opened(loop, remote_addr=far.getsockname())
                reused += new.transport.get_extra_info("socket").fileno() == fd
                old.transport.sendto(b"from the dead")
                old.transport.abort()
                far.sendto(b"new %d" % number, name_of(new))
                await new.got(1)
                new.transport.sendto(b"new")
                assert await aside(receive, far, 2) == [b"old", b"new"]
                assert new.data == [b"new %d" % number]
                assert b"new %d" % number not in old.data
                assert old.calls.count("connection_lost") == 1
                new.transport.close()
                await new.lost
        return reused

    # The kernel hands out the lowest free number, so a loop that closes what it should reuses it nearly every time.
    assert loop.run_until_complete(main()) > rounds // 2


@clause("udp.lifetime.no-fds")
@ENDS
def test_hundreds_of_endpoints_leave_no_descriptor(loop, run, end):
    async def main():
        await many(1)
        before = len(os.listdir("/dev/fd"))
        for _ in range(5):
            await many(100)
        gc.collect()
        return len(os.listdir("/dev/fd")) - before

    async def many(count):
        made = [await opened(loop) for _ in range(count)]
        for protocol in made:
            protocol.transport.sendto(b"x", name_of(protocol))
        for protocol in made:
            await protocol.got(1)
        for protocol in made:
            getattr(protocol.transport, end)()
        for protocol in made:
            await protocol.lost
        await turns(1)

    assert run(main()) == 0


@clause("udp.lifetime.lets-go-of-protocol")
@ENDS
def test_a_lost_endpoint_keeps_no_protocol_alive(loop, run, end):
    async def main():
        protocol = await opened(loop)
        transport = protocol.transport
        getattr(transport, end)()
        await protocol.lost
        await turns()
        return transport, weakref.ref(protocol)

    transport, protocol = run(main())
    gc.collect()
    assert transport.is_closing()
    assert protocol() is None


@clause("udp.lifetime.unclosed-warns")
def test_an_endpoint_that_nobody_closed_warns_and_closes_its_socket(loop_factory):
    loop = loop_factory()
    sock = far_end()
    fd = sock.fileno()
    loop.run_until_complete(loop.create_datagram_endpoint(functools.partial(Datagrams, loop), sock=sock))
    del sock
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
        gc.collect()
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]
    assert any("unclosed transport" in message for message in messages), messages
    with pytest.raises(OSError):
        os.fstat(fd)


@clause("udp.close.extra-info-stays")
def test_addresses_are_known_after_the_end(loop, run):
    async def main(far):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            before = [protocol.transport.get_extra_info(name) for name in ("sockname", "peername")]
        after = [protocol.transport.get_extra_info(name) for name in ("sockname", "peername")]
        return before == after, after[1]

    with far_end() as far:
        assert run(main(far)) == (True, far.getsockname())
