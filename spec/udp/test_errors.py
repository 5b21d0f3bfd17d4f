"""error_received(): what the kernel says about single datagrams, none of which ends the endpoint."""

from __future__ import annotations

import errno

import pytest

from .._kit import clause
from .._kit.contracts.stream import aside, turns
from .recording import LOCALHOST, Datagrams, endpoint, far_end, fill, filling_pair, name_of, refusing


@clause("udp.errors.refused")
def test_each_refused_datagram_is_told_to_error_received(loop, run):
    async def main(far):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            for count in range(1, 6):
                protocol.transport.sendto(b"refused")
                await protocol.called("error_received", count)
                await turns()
            return protocol.failures, protocol.calls

    with refusing() as far:
        failures, calls = run(main(far))
    assert [type(failure) for failure in failures] == [ConnectionRefusedError] * 5
    assert calls == ["connection_made"] + ["error_received"] * 5


@clause("udp.errors.refused-then-taken")
def test_an_endpoint_goes_on_in_both_directions_after_a_refusal(loop, run):
    async def main(far):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            protocol.transport.sendto(b"refused")
            await protocol.called("error_received")
            far.connect(name_of(protocol))
            protocol.transport.sendto(b"ping")
            data = await aside(far.recv, 100)
            far.send(b"pong")
            await protocol.got(1)
            return data, protocol.data, protocol.transport.is_closing(), protocol.lost.done()

    with refusing() as far:
        assert run(main(far)) == (b"ping", [b"pong"], False, False)


@clause("udp.errors.refused-while-idle")
def test_a_refusal_is_told_to_an_endpoint_that_sends_nothing_more(loop, run):
    """It comes as an event on the socket, not with the next call."""

    async def main(far):
        async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
            protocol.transport.sendto(b"refused")
            await protocol.called("error_received")
            await turns(20)
            return protocol.calls

    with refusing() as far:
        assert run(main(far)) == ["connection_made", "error_received"]


@clause("udp.errors.unread-survives")
def test_datagrams_around_a_refusal_are_received(loop, run):
    async def main(far):
        sock = far_end()
        sock.connect(far.getsockname())
        far.connect(sock.getsockname())
        far.send(b"before")
        with far_end() as elsewhere:
            far.connect(elsewhere.getsockname())
        sock.send(b"refused")
        far.connect(sock.getsockname())
        far.send(b"behind")
        async with endpoint(loop, sock=sock) as protocol:
            await protocol.until(lambda: len(protocol.received) == 2 and protocol.failures)
            return protocol.data, [type(failure) for failure in protocol.failures]

    with far_end() as far:
        assert run(main(far)) == ([b"before", b"behind"], [ConnectionRefusedError])


@clause("udp.errors.too-large")
@pytest.mark.parametrize("size", [65508, 100_000, 1 << 20])
def test_a_datagram_that_is_too_large_is_told_to_error_received(loop, run, size):
    async def main(far):
        async with endpoint(loop) as protocol:
            protocol.transport.sendto(bytes(size), far.getsockname())
            await protocol.called("error_received")
            protocol.transport.sendto(b"fits", far.getsockname())
            return protocol.failures, await aside(far.recv, 100), protocol.transport.get_write_buffer_size()

    with far_end() as far:
        (failure,), data, queued = run(main(far))
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EMSGSIZE
    assert (data, queued) == (b"fits", 0)


@clause("udp.errors.too-large")
def test_a_datagram_that_is_too_large_between_others_takes_none_with_it(loop, run):
    async def main(far):
        async with endpoint(loop) as protocol:
            for data in (b"1", b"2", bytes(70000), b"3", bytes(70000), b"4"):
                protocol.transport.sendto(data, far.getsockname())
            got = [await aside(far.recv, 100) for _ in range(4)]
            await protocol.called("error_received", 2)
            await turns()
            return got, len(protocol.failures)

    with far_end() as far:
        assert run(main(far)) == ([b"1", b"2", b"3", b"4"], 2)


@clause("udp.errors.callback-raises")
def test_an_exception_in_error_received_does_not_end_the_endpoint(loop, run, errors):
    class CallbackError(Exception):
        pass

    def fail(_):
        raise CallbackError

    async def main(far):
        protocol = Datagrams(loop, error_received=fail)
        async with endpoint(loop, protocol, remote_addr=far.getsockname()):
            protocol.transport.sendto(b"refused")
            await protocol.called("error_received")
            far.connect(name_of(protocol))
            far.send(b"hello")
            await protocol.got(1)
            return protocol.data

    with refusing() as far:
        assert run(main(far)) == [b"hello"]
    assert isinstance(errors.only()["exception"], CallbackError)


@clause("udp.errors.queued")
def test_each_queued_datagram_that_fails_is_told_to_error_received(loop, run):
    """The far end goes while datagrams wait for it."""

    async def main(ours, theirs):
        async with endpoint(loop, sock=ours) as protocol:
            await fill(protocol.transport)
            for _ in range(4):
                protocol.transport.sendto(b"waits too")
            theirs.close()
            await protocol.called("error_received", 5)
            await turns(20)
            return protocol.failures, protocol.lost.done(), protocol.transport.is_closing()

    with filling_pair() as (ours, theirs):
        failures, lost, closing = run(main(ours, theirs))
    assert len(failures) == 5
    assert all(isinstance(failure, OSError) for failure in failures)
    assert (lost, closing) == (False, False)


@clause("udp.errors.close-in-error-received")
@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_endpoint_may_be_ended_in_error_received(loop, run, end):
    async def main(far):
        protocol = Datagrams(loop)
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, remote_addr=far.getsockname())
        protocol.hooks["error_received"] = lambda _: getattr(transport, end)()
        transport.sendto(b"refused")
        reason = await protocol.lost
        await turns()
        return reason, protocol.calls

    with refusing() as far:
        assert run(main(far)) == (None, ["connection_made", "error_received", "connection_lost"])


@clause("udp.errors.unconnected")
def test_an_endpoint_without_remote_address_goes_on_after_sending_to_nobody(loop, run):
    async def main(nobody, far):
        async with endpoint(loop, local_addr=(LOCALHOST, 0)) as protocol:
            protocol.transport.sendto(b"x", nobody.getsockname())
            await turns()
            protocol.transport.sendto(b"y", far.getsockname())
            return await aside(far.recv, 100), protocol.lost.done()

    with refusing() as nobody, far_end() as far:
        assert run(main(nobody, far)) == (b"y", False)
