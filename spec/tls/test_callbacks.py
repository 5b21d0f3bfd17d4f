"""What exceptions in callbacks come to over TLS, buffers of a BufferedProtocol, contexts, and transports left open."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import BufferedRecorder, Recorder, follows_grammar, pattern, pieces
from .._kit.contracts.stream import aside, close_with_a_transport_open, turns
from .connections import RECORD, SIDES, Buffered, connect, connected, contexts, start, told

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


ENDS = ("connection_made", "eof_received", "connection_lost")
DELIVERIES = ("data_received", "get_buffer", "buffer_updated")


class Boom(Exception):
    pass


class BareBoom(BaseException):
    """Not an Exception, and neither of those that leave the loop."""


def raising(kind):
    def boom(*_):
        raise kind

    return boom


@clause("tls.errors.data-callbacks")
@pytest.mark.parametrize("kind", [Boom, BareBoom])
@pytest.mark.parametrize("name", ["data_received", "buffer_updated", "get_buffer", "eof_received"])
@SIDES
def test_an_exception_in_a_callback_is_reported_once_and_ends_the_connection_with_it(
    loop, run, errors, side, name, kind
):
    async def main():
        protocol = (Buffered if "buffer" in name else Recorder)(loop)
        async with connected(loop, protocol, side) as (_, peer):
            protocol.hooks[name] = raising(kind)

            def talk():
                peer.send(b"x")
                if name == "eof_received":
                    peer.end()
                peer.sock.recv(65536)

            await aside(peers_end, talk)
            return await protocol.lost, protocol.calls

    reason, calls = run(main())
    assert isinstance(reason, kind)
    assert calls.count("connection_lost") == 1
    assert calls[-1] == "connection_lost"
    context = errors.only()
    assert context["exception"] is reason
    assert context["message"]


def peers_end(talk):
    """Run what a peer does, to whom the connection may be reset."""
    with contextlib.suppress(OSError):
        talk()


@clause("tls.errors.drops-queued")
def test_an_exception_in_data_received_sends_no_close_notify(loop, run, errors):
    async def main():
        protocol = Recorder(loop, data_received=raising(Boom))
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.send, b"x")
            reason = await protocol.lost
            with pytest.raises((OSError, EOFError)):
                await aside(peer.exactly, 1)
            return isinstance(reason, Boom)

    assert run(main())
    errors.only()


@clause("tls.errors.os-error")
def test_an_os_error_raised_by_a_callback_ends_the_connection_with_it(loop, run, errors):
    """Whether it is reported as well is left open: stock asyncio takes it for an error of the connection."""

    async def main():
        protocol = Recorder(loop, data_received=raising(FileNotFoundError("mine")))
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.send, b"x")
            return await protocol.lost

    assert isinstance(run(main()), FileNotFoundError)
    errors.take()


@clause("tls.errors.connection-made")
@SIDES
def test_an_exception_in_connection_made_fails_the_connection_or_is_reported(loop, run, errors, side, saw):
    async def main():
        protocol = Recorder(loop, connection_made=raising(Boom))
        ours, theirs = peers.pair()
        context, other = contexts(side)
        with theirs:

            def talk():
                with other.wrap_socket(
                    theirs, side == "client", server_hostname=None if side == "client" else "localhost"
                ) as tls:
                    tls.recv(1)

            talking = loop.create_task(aside(peers_end, talk))
            raised = None
            try:
                await start(loop, protocol, ours, context, side)
            except Boom as error:
                raised = error
            reported = [each["exception"] for each in errors.take()]
            if protocol.transport is not None and not protocol.lost.done():
                protocol.transport.abort()
            await talking
            await turns(20)
            return raised is not None, any(isinstance(each, Boom) for each in reported), protocol.calls

    raised, reported, calls = run(main())
    assert raised or reported
    assert follows_grammar(calls, finished=False), calls
    errors.take()
    if raised:
        saw("tls.errors.connection-made", "raised by create_connection() or connect_accepted_socket()")
    if reported:
        saw("tls.errors.connection-made", "given to the exception handler")


@clause("tls.errors.connection-lost")
@pytest.mark.parametrize("end", ["close", "abort", "peer"])
def test_an_exception_in_connection_lost_is_reported(loop, run, errors, end):
    async def main():
        protocol = Recorder(loop, connection_lost=raising(Boom))
        async with connected(loop, protocol) as (transport, peer):
            if end != "peer":
                getattr(transport, end)()
            peer.end()
            await protocol.lost
            await turns(20)
            await aside(peers_end, peer.drain)
            return protocol.calls.count("connection_lost")

    assert run(main()) == 1
    assert isinstance(errors.only()["exception"], Boom)


@clause("tls.errors.exits")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated", "connection_lost"])
def test_system_exit_and_keyboard_interrupt_leave_run_forever(loop, run, name, kind):
    protocol = (Buffered if "buffer" in name else Recorder)(loop)
    transport, peer = run(connect(loop, protocol))

    def leave(*_):
        del protocol.hooks[name]
        raise kind

    protocol.hooks[name] = leave
    peer.send(b"x")
    if name == "connection_lost":
        peer.end()
    guard = loop.call_later(2, loop.stop)
    with pytest.raises(kind):
        loop.run_forever()
    guard.cancel()
    assert not loop.is_running()
    transport.abort()
    run(turns(20))
    peer.cut()


@clause("tls.buffered.sizes")
@pytest.mark.parametrize("size", [1, 7, 4096, RECORD, 1_000_000])
@SIDES
def test_a_buffered_protocol_gets_the_data_whole_whatever_its_buffer(loop, run, side, size):
    data = pattern(5_000 if size < 10 else 1_000_003)

    async def main():
        protocol = Buffered(loop, size)
        updates = []
        protocol.hooks["buffer_updated"] = updates.append
        async with connected(loop, protocol, side) as (_, peer):
            sending = loop.create_task(aside(peer.sendall, data))
            await protocol.received(len(data))
            await sending
            return bytes(protocol.data) == data, all(0 < nbytes <= size for nbytes in updates)

    assert run(main()) == (True, True)


@clause("tls.buffered.bytearray")
@pytest.mark.parametrize("size", [7, 100, 1_000_000])
def test_a_buffer_that_is_a_bytearray_is_filled_by_several_records(loop, run, size):
    data = pattern(40_000)

    async def main():
        protocol = BufferedRecorder(loop, size)
        async with connected(loop, protocol, small=False) as (_, peer):
            await aside(peer.sock.sendall, peer.seal(*pieces(data, 5)))
            await protocol.received(len(data))
            return bytes(protocol.data)

    assert run(main()) == data


@clause("tls.buffered.state-machine")
def test_a_buffered_protocol_follows_its_state_machine(loop, run):
    async def main():
        protocol = Buffered(loop, 1000)
        hints = []
        protocol.hooks["get_buffer"] = hints.append
        async with connected(loop, protocol) as (_, peer):
            await aside(peer.sendall, pattern(10_000))
            await aside(peer.unwrap)
            await protocol.lost
            return protocol.calls, hints, len(protocol.data)

    calls, hints, size = run(main())
    assert size == 10_000
    assert follows_grammar(calls), calls
    assert calls[-2:] == ["eof_received", "connection_lost"]
    assert all(isinstance(hint, int) and (hint == -1 or hint > 0) for hint in hints), hints


@clause("tls.buffered.no-useless-buffers")
def test_the_buffer_is_asked_for_when_there_is_data(loop, run):
    """get_buffer() may prepare memory: one call of it is one delivery, or the last look at what has come."""

    async def main():
        protocol = Buffered(loop, 100)
        async with connected(loop, protocol) as (_, peer):
            await turns(20)
            for count in range(10):
                await aside(peer.send, b"x")
                await protocol.received(count + 1)
                await turns(20)
            return protocol.calls.count("get_buffer"), protocol.calls.count("buffer_updated")

    asked, updated = run(main())
    assert updated == 10
    assert asked <= 2 * updated + 2


@contextlib.asynccontextmanager
async def given_an_empty_buffer(loop):
    """A protocol, after a byte came for which it had an empty buffer, and had two seconds to be lost."""
    protocol = Buffered(loop)
    async with connected(loop, protocol, ssl_shutdown_timeout=0.1) as (_, peer):
        protocol.hooks["get_buffer"] = lambda _: bytearray()
        await aside(peers_end, lambda: peer.send(b"x"))
        await asyncio.wait([protocol.lost], timeout=2)
        yield protocol


@clause("tls.buffered.empty-ends")
def test_an_empty_buffer_ends_the_connection(loop, run, errors):
    async def main():
        async with given_an_empty_buffer(loop) as protocol:
            return told(protocol)

    calls = run(main())
    errors.take()
    assert "data_received" not in calls
    assert follows_grammar(calls), calls  # to the end


@clause("tls.buffered.empty-is-an-error")
def test_an_empty_buffer_is_reported_as_an_error(loop, run, errors):
    async def main():
        async with given_an_empty_buffer(loop) as protocol:
            assert protocol.lost.done()
            return protocol.lost.result(), errors.take()

    reason, reported = run(main())
    assert isinstance(reason, RuntimeError)
    assert [each["exception"] for each in reported] == [reason]


@clause("tls.buffered.not-writable")
@pytest.mark.parametrize("given", [b"read-only", "text", 5], ids=lambda given: type(given).__name__)
def test_a_thing_that_is_no_writable_buffer_is_reported_and_ends_the_connection(loop, run, errors, given, saw):
    async def main():
        protocol = Buffered(loop)
        async with connected(loop, protocol) as (_, peer):
            protocol.hooks["get_buffer"] = lambda hint: given
            await aside(peers_end, lambda: peer.send(b"x"))
            reason = await protocol.lost
            return reason, protocol.calls

    reason, calls = run(main())
    assert isinstance(reason, (TypeError, BufferError))
    saw("tls.buffered.not-writable", "TypeError" if isinstance(reason, TypeError) else "BufferError")
    assert "buffer_updated" not in calls
    assert errors.only()["exception"] is reason


@clause("tls.buffered.set-in-flight")
@pytest.mark.parametrize("count", [1, 40])
def test_protocols_of_both_kinds_take_over_in_the_middle_of_what_has_come(loop, run, count):
    """All records come in one segment, and each protocol hands over to the next one in its first callback."""
    data = pattern(count * 1000)
    chunks = []

    async def main():
        protocols = [(Buffered(loop, 10) if at % 2 else Recorder(loop)) for at in range(4)]

        def hand_over(at):
            def hook(_):
                chunks.append(len(protocols[at].data))
                if at + 1 < len(protocols):
                    protocols[0].transport.set_protocol(protocols[at + 1])

            return hook

        for at, protocol in enumerate(protocols):
            protocol.hooks["buffer_updated" if at % 2 else "data_received"] = hand_over(at)
        async with connected(loop, protocols[0], small=False) as (transport, peer):
            await aside(peer.sock.sendall, peer.seal(*pieces(data, 1000)))
            await protocols[0].called("data_received")
            for at in range(3):
                await aside(peer.send, b"more")
                await protocols[at + 1].until(lambda at=at: protocols[at + 1].data)
            await turns(20)
            got = b"".join(bytes(protocol.data) for protocol in protocols)
            made = [protocol.calls.count("connection_made") for protocol in protocols]
            current = transport.get_protocol() is protocols[3]
            transport.set_protocol(protocols[0])
            return got, made, current

    got, made, current = run(main())
    assert got == data + b"more" * 3
    assert made == [1, 0, 0, 0]
    assert current


@clause("tls.callbacks.context")
@pytest.mark.parametrize("kind", [Recorder, Buffered])
@SIDES
def test_callbacks_run_in_the_context_that_made_the_transport(loop, run, side, kind):
    async def main():
        seen = {}
        protocol = kind(loop)
        for name in (
            "connection_made",
            "data_received",
            "get_buffer",
            "buffer_updated",
            "eof_received",
            "connection_lost",
        ):
            protocol.hooks[name] = lambda *_, name=name: seen.update({name: VARIABLE.get()})
        VARIABLE.set("maker")
        transport, peer = await connect(loop, protocol, side)
        VARIABLE.set("later")
        transport.pause_reading()
        await turns(5)
        transport.resume_reading()
        await aside(peer.send, b"x")
        await protocol.received(1)
        await aside(peer.unwrap)
        await protocol.lost
        peer.cut()
        return seen

    seen = run(main())
    made_in = {
        name: value for name, value in seen.items() if name not in ("data_received", "get_buffer", "buffer_updated")
    }
    # What was held back while reading was paused is delivered in the context of either.
    assert set(made_in.values()) == {"maker"}, seen
    assert set(seen.values()) <= {"maker", "later"}


@clause("tls.lifetime.unclosed-warns")
@SIDES
def test_a_transport_left_open_by_a_closed_loop_warns_and_frees_its_descriptor(new_loop, side):
    loop = new_loop()

    async def opened():
        protocol = Recorder(loop)
        transport, peer = await connect(loop, protocol, side)
        return transport.get_extra_info("socket").fileno(), peer

    fd, peer = loop.run_until_complete(opened())
    close_with_a_transport_open(loop, fd)
    peer.cut()
