"""What waits in the transport: limits, pauses, sizes, order."""

from __future__ import annotations

import array
import itertools
import os
import socket
import tempfile

import pytest

from .._kit import clause
from .._kit.contracts.stream import aside, turns
from .recording import Datagrams, endpoint, fill, filling_pair, numbered, receive


@pytest.fixture
def pair():
    with filling_pair() as both:
        yield both


@clause("udp.flow.limits")
def test_limits_are_low_and_high_and_can_be_set(loop, run):
    async def main():
        async with endpoint(loop) as protocol:
            transport = protocol.transport
            default = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(high=1000, low=10)
            given = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(high=1000)
            high_only = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(low=1000)
            low_only = transport.get_write_buffer_limits()
            transport.set_write_buffer_limits(high=0)
            return default, given, high_only, low_only, transport.get_write_buffer_limits()

    default, given, high_only, low_only, zero = run(main())
    assert 0 <= default[0] <= default[1]
    assert given == (10, 1000)
    assert 0 <= high_only[0] <= high_only[1] == 1000
    assert 1000 == low_only[0] <= low_only[1]
    assert zero == (0, 0)


@clause("udp.flow.limits-invalid")
@pytest.mark.parametrize(
    "limits", [{"high": 10, "low": 11}, {"high": -1}, {"low": -1}, {"high": 5, "low": -1}], ids=str
)
def test_limits_that_do_not_fit_raise_value_error_and_change_nothing(loop, run, limits):
    async def main():
        async with endpoint(loop) as protocol:
            protocol.transport.set_write_buffer_limits(high=1000, low=10)
            with pytest.raises(ValueError):
                protocol.transport.set_write_buffer_limits(**limits)
            return protocol.transport.get_write_buffer_limits()

    assert run(main()) == (10, 1000)


@clause("udp.flow.queued-in-order")
def test_what_waits_is_sent_in_order_once_there_is_room(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            sent = await fill(protocol.transport)
            for number in range(len(sent), len(sent) + 100):
                sent.append(numbered(number, 6 + number % 700))
                protocol.transport.sendto(sent[-1])
            return sent, await aside(receive, theirs, len(sent)), protocol.failures

    sent, got, failures = run(main(*pair))
    assert got == sent
    assert not failures


@clause("udp.flow.queued-copied")
def test_a_queued_datagram_is_a_copy_of_the_callers_buffer(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            sent = await fill(protocol.transport)
            buffer = bytearray(b"before")
            protocol.transport.sendto(buffer)
            buffer[:] = b"after!"
            protocol.transport.sendto(memoryview(buffer))
            buffer[:] = b"later!"
            got = await aside(receive, theirs, len(sent) + 2)
            return got[-2:]

    assert run(main(*pair)) == [b"before", b"after!"]


@clause("udp.flow.pause-inline")
def test_pause_writing_is_called_before_the_sendto_that_crosses_the_high_limit_returns(loop, run, pair):
    async def main(ours, _):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            await fill(transport)
            transport.set_write_buffer_limits(high=transport.get_write_buffer_size() + 3000)
            before = protocol.calls.count("pause_writing")
            transport.sendto(bytes(1000))
            within = protocol.calls.count("pause_writing")
            transport.sendto(bytes(2500))
            over = protocol.calls.count("pause_writing")
            transport.sendto(bytes(1000))  # paused already: no second call
            return before, within, over, protocol.calls.count("pause_writing")

    assert run(main(*pair)) == (0, 0, 1, 1)


@clause("udp.flow.resume")
def test_resume_writing_is_called_once_the_queue_is_at_or_under_the_low_limit(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            sizes = []
            protocol.hooks["resume_writing"] = lambda: sizes.append(transport.get_write_buffer_size())
            sent = await fill(transport)
            transport.set_write_buffer_limits(high=20_000, low=5_000)
            while "pause_writing" not in protocol.calls:
                sent.append(numbered(len(sent), 1000))
                transport.sendto(sent[-1])
            await turns(20)
            early = list(sizes)
            got = await aside(receive, theirs, len(sent))
            await protocol.called("resume_writing")
            await turns(20)
            return early, sizes, got == sent, [name for name in protocol.calls if "writing" in name]

    early, sizes, whole, calls = run(main(*pair))
    assert early == []  # the peer had not read
    assert len(sizes) == 1
    assert sizes[0] <= 5_000
    assert whole
    assert calls == ["pause_writing", "resume_writing"]


@clause("udp.flow.paired")
def test_pauses_and_resumes_alternate_while_a_paced_writer_sends(loop, run, pair):
    total = 400

    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            transport.set_write_buffer_limits(high=8_000, low=4_000)
            reading = loop.create_task(aside(receive, theirs, total))
            for number in range(total):
                transport.sendto(numbered(number, 1000))
                await protocol.called("resume_writing", protocol.calls.count("pause_writing"))
            got = await reading
            await turns()
            return got, [name for name in protocol.calls if "writing" in name]

    got, calls = run(main(*pair))
    assert got == [numbered(number, 1000) for number in range(total)]
    assert calls == ["pause_writing", "resume_writing"] * (len(calls) // 2)


@clause("udp.flow.drains-to-zero")
def test_the_size_ends_at_zero_and_a_limit_of_zero_resumes(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            transport.set_write_buffer_limits(high=0)
            sent = await fill(transport)
            protocol.transport.sendto(b"one more")
            paused = protocol.calls.count("pause_writing")
            await aside(receive, theirs, len(sent) + 1)
            await protocol.called("resume_writing")
            return paused, transport.get_write_buffer_size(), protocol.calls.count("resume_writing")

    assert run(main(*pair)) == (1, 0, 1)


@clause("udp.flow.buffer-size")
def test_the_size_counts_every_byte_that_waits(loop, run, pair):
    async def main(ours, _):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            at_first = transport.get_write_buffer_size()
            await fill(transport)
            sizes = [transport.get_write_buffer_size()]
            for size in (0, 1, 10, 100, 1000):
                transport.sendto(bytes(size))
                sizes.append(transport.get_write_buffer_size())
            return at_first, sizes

    at_first, sizes = run(main(*pair))
    assert at_first == 0
    for size, (before, after) in zip((0, 1, 10, 100, 1000), itertools.pairwise(sizes), strict=True):
        assert size <= after - before <= size + 64, sizes  # a header may count


@clause("udp.flow.wide-items")
def test_the_size_of_a_view_of_wide_items_is_that_of_its_bytes(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            sent = await fill(protocol.transport)
            before = protocol.transport.get_write_buffer_size()
            protocol.transport.sendto(memoryview(array.array("I", range(1000))))
            grown = protocol.transport.get_write_buffer_size() - before
            return grown, (await aside(receive, theirs, len(sent) + 1))[-1]

    grown, last = run(main(*pair))
    assert last == array.array("I", range(1000)).tobytes()
    assert grown >= len(last)


@clause("udp.flow.header-counted")
def test_empty_datagrams_count_so_that_a_queue_of_them_pauses(loop, run, pair):
    async def main(ours, _):
        async with endpoint(loop, sock=ours) as protocol:
            await fill(protocol.transport)
            _, high = protocol.transport.get_write_buffer_limits()
            for _ in range(high):
                protocol.transport.sendto(b"")
            return protocol.calls.count("pause_writing")

    assert run(main(*pair)) == 1


@clause("udp.flow.set-limits-pauses")
def test_lowering_the_high_limit_under_what_waits_pauses(loop, run, pair):
    async def main(ours, _):
        async with endpoint(loop, sock=ours) as protocol:
            await fill(protocol.transport)
            before = protocol.calls.count("pause_writing")
            protocol.transport.set_write_buffer_limits(high=10)
            return before, protocol.calls.count("pause_writing")

    assert run(main(*pair)) == (0, 1)


@clause("udp.flow.send-in-resume")
def test_sendto_within_pause_writing_and_resume_writing_is_sent_behind_what_waits(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            transport = protocol.transport
            protocol.hooks["pause_writing"] = lambda: transport.sendto(b"in pause")
            protocol.hooks["resume_writing"] = lambda: transport.sendto(b"in resume")
            sent = await fill(transport)
            transport.set_write_buffer_limits(high=5_000, low=2_000)
            while "pause_writing" not in protocol.calls:
                sent.append(numbered(len(sent), 1000))
                transport.sendto(sent[-1])
            got = await aside(receive, theirs, len(sent) + 2)
            return got == [*sent, b"in pause", b"in resume"]

    assert run(main(*pair))


@clause("udp.flow.callback-raises")
@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_an_exception_in_a_flow_callback_is_reported_and_the_endpoint_goes_on(loop, run, errors, pair, callback):
    class CallbackError(Exception):
        pass

    def fail():
        raise CallbackError

    async def main(ours, theirs):
        protocol = Datagrams(loop, **{callback: fail})
        async with endpoint(loop, protocol, sock=ours):
            sent = await fill(protocol.transport)
            protocol.transport.set_write_buffer_limits(high=900, low=800)
            got = await aside(receive, theirs, len(sent))
            await protocol.called("resume_writing")
            protocol.transport.sendto(b"goes on")
            return got == sent, await aside(theirs.recv, 100), protocol

    whole, last, protocol = run(main(*pair))
    assert (whole, last) == (True, b"goes on")
    context = errors.only()
    assert isinstance(context["exception"], CallbackError)
    assert callback in context["message"]
    assert context["transport"] is protocol.transport
    assert context["protocol"] is protocol


@clause("udp.flow.receives-while-full")
def test_an_endpoint_that_cannot_send_receives(loop, run, pair):
    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            await fill(protocol.transport)
            await aside(theirs.send, b"in")
            await protocol.got(1)
            return protocol.data, protocol.transport.get_write_buffer_size() > 0

    assert run(main(*pair)) == ([b"in"], True)


@clause("udp.flow.full-receiver")
def test_what_waits_for_a_receiver_that_is_full_is_sent_once_it_reads(loop, run, pair):
    """A sender that is not connected to it: the kernel calls the socket writable all the while."""
    del pair  # a Linux with such sockets

    async def main(directory):
        path = os.path.join(directory, "receiver")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
            theirs.bind(path)
            theirs.settimeout(15)
            async with endpoint(loop, family=socket.AF_UNIX, local_addr=os.path.join(directory, "sender")) as protocol:
                sent = [numbered(number, 100) for number in range(60)]  # net.unix.max_dgram_qlen is 10
                for data in sent:
                    protocol.transport.sendto(data, path)
                await turns()
                waits = protocol.transport.get_write_buffer_size() > 0
                return waits, await aside(receive, theirs, 60) == sent

    with tempfile.TemporaryDirectory() as directory:
        waits, whole = run(main(directory))
    if not waits:
        pytest.skip("this kernel queues them all")
    assert whole
