"""Rules about the protocol of a transport: asking for it, changing it, and BufferedProtocol."""

from __future__ import annotations

import contextlib
import socket

import pytest

from ..recording import BufferedRecorder, Recorder, follows_grammar, pattern
from ..stream import MORE_THAN_THE_KERNEL_TAKES, aside, drain, rule, turns

BLOB = pattern(MORE_THAN_THE_KERNEL_TAKES)


@rule("protocol.get", needs="")
def get_protocol_returns_the_current_protocol(stream, loop, run):
    async def main():
        first, second = Recorder(loop), Recorder(loop)
        transport, _ = await stream(first)
        before = transport.get_protocol() is first
        transport.set_protocol(second)
        after = transport.get_protocol() is second
        transport.set_protocol(first)
        return before, after

    assert run(main()) == (True, True)


@rule("protocol.set-in-flight", needs="read")
def a_new_protocol_gets_the_data_the_end_and_no_connection_made(stream, loop, run):
    async def main():
        first, second = Recorder(loop), Recorder(loop)
        transport, peer = await stream(first)
        await aside(peer.sendall, b"first")
        await first.received(5)
        transport.set_protocol(second)

        def send_and_close():
            peer.sendall(b"second")
            peer.close()

        await aside(send_and_close)
        reason = await second.lost
        await turns()
        first.lost.set_result(None)  # what the fixture waits for
        return bytes(first.data), bytes(second.data), first.calls, second.calls, reason

    first_data, second_data, first_calls, second_calls, reason = run(main())
    assert (first_data, second_data) == (b"first", b"second")
    assert first_calls == ["connection_made", "data_received"]
    assert set(second_calls[:-2]) == {"data_received"}
    assert second_calls[-2:] == ["eof_received", "connection_lost"]
    assert reason is None


@rule("protocol.set-in-data-received", needs="read")
def a_protocol_set_within_data_received_gets_everything_after_that_call(stream, loop, run):
    async def main():
        first, second = Recorder(loop), Recorder(loop)
        first.hooks["data_received"] = lambda data: first.transport.set_protocol(second)
        transport, peer = await stream(first)
        blob = pattern(2_000_000)
        sending = loop.create_task(aside(peer.sendall, blob))
        await second.until(lambda: len(first.data) + len(second.data) == len(blob))
        await sending
        transport.set_protocol(first)
        return first.calls.count("data_received"), bytes(first.data + second.data) == blob

    assert run(main()) == (1, True)


@rule("protocol.set-flow", needs="write")
def flow_control_goes_to_the_protocol_that_is_set_by_then(stream, loop, run):
    async def main():
        first, second = Recorder(loop), Recorder(loop)
        transport, peer = await stream(first)
        transport.write(BLOB)
        transport.set_protocol(second)
        reading = loop.create_task(aside(peer.recv, 1))
        await reading

        def read_all():
            left = len(BLOB) - 1
            while left:
                left -= len(peer.recv(min(left, 262144)))

        await aside(read_all)
        await second.called("resume_writing")
        transport.set_protocol(first)
        return first.calls, second.calls

    assert run(main()) == (["connection_made", "pause_writing"], ["resume_writing"])


@rule("protocol.set-to-buffered-and-back", needs="read")
def a_transport_switches_from_protocol_to_buffered_protocol_and_back(stream, loop, run):
    async def main():
        plain, buffered, again = Recorder(loop), BufferedRecorder(loop, 10), Recorder(loop)
        transport, peer = await stream(plain)
        await aside(peer.sendall, b"to the plain one")
        await plain.received(16)
        transport.set_protocol(buffered)
        await aside(peer.sendall, b"to the buffered one")
        await buffered.received(19)
        transport.set_protocol(again)
        await aside(peer.sendall, b"to the last one")
        await again.received(15)
        transport.set_protocol(plain)
        return bytes(plain.data), bytes(buffered.data), bytes(again.data), set(buffered.calls)

    plain, buffered, again, calls = run(main())
    assert plain == b"to the plain one"
    assert buffered == b"to the buffered one"
    assert again == b"to the last one"
    assert calls == {"get_buffer", "buffer_updated"}


@rule("protocol.set-while-paused", needs="read")
def a_protocol_set_while_reading_is_paused_gets_what_waits(stream, loop, run):
    async def main():
        first, second = Recorder(loop), BufferedRecorder(loop)
        transport, peer = await stream(first)
        transport.pause_reading()
        await aside(peer.sendall, b"waiting")
        await turns(20)
        transport.set_protocol(second)
        transport.resume_reading()
        await second.received(7)
        transport.set_protocol(first)
        return bytes(first.data), bytes(second.data)

    assert run(main()) == (b"", b"waiting")


@rule("buffered.whole-in-order", needs="read")
@pytest.mark.parametrize("size", [1, 7, 4096, 1_000_000])
def a_buffered_protocol_gets_the_data_whole_whatever_its_buffer(stream, loop, run, size):
    blob = pattern(20_000 if size < 10 else 1_000_003)

    async def main():
        protocol = BufferedRecorder(loop, size)
        updates = []
        protocol.hooks["buffer_updated"] = updates.append
        _, peer = await stream(protocol)
        sending = loop.create_task(aside(peer.sendall, blob))
        await protocol.received(len(blob))
        await sending
        return bytes(protocol.data), updates

    got, updates = run(main())
    assert got == blob
    assert all(0 < nbytes <= size for nbytes in updates)


@rule("buffered.order", needs="read")
def a_buffered_protocol_follows_its_state_machine(stream, loop, run):
    async def main():
        protocol = BufferedRecorder(loop, 1000)
        hints = []
        protocol.hooks["get_buffer"] = hints.append
        _, peer = await stream(protocol)

        def send_and_close():
            peer.sendall(pattern(10_000))
            peer.close()

        await aside(send_and_close)
        reason = await protocol.lost
        return protocol.calls, hints, len(protocol.data), reason

    calls, hints, size, reason = run(main())
    assert follows_grammar(calls), calls
    assert size == 10_000
    assert reason is None
    assert calls[-2:] == ["eof_received", "connection_lost"]
    assert all(isinstance(hint, int) and (hint == -1 or hint > 0) for hint in hints)


@rule("buffered.any-writable-buffer", needs="read")
@pytest.mark.parametrize("offset", [0, 3])
def a_buffered_protocol_may_give_any_writable_buffer(stream, loop, run, offset):
    async def main():
        protocol = BufferedRecorder(loop, 100)
        protocol.hooks["get_buffer"] = lambda hint: memoryview(protocol.buffer)[offset:][:10]
        got = bytearray()
        protocol.hooks["buffer_updated"] = lambda n: got.extend(protocol.buffer[offset : offset + n])
        _, peer = await stream(protocol)
        await aside(peer.sendall, pattern(1000))
        await protocol.until(lambda: len(got) == 1000)
        return bytes(got), bytes(protocol.buffer[:offset]), bytes(protocol.buffer[offset + 10 :])

    got, before, after = run(main())
    assert got == pattern(1000)
    assert not any(before)
    assert not any(after)


@rule("buffered.eof", needs="read write half_close")
@pytest.mark.parametrize("answer", [True, None])
def the_answer_of_a_buffered_protocol_to_eof_counts(stream, loop, run, answer):
    async def main():
        protocol = BufferedRecorder(loop, eof_received=lambda: answer)
        transport, peer = await stream(protocol)
        await aside(peer.shutdown, socket.SHUT_WR)
        await protocol.called("eof_received")
        await turns(20)
        lost = protocol.lost.done()
        if not lost:
            transport.write(b"open")
            transport.close()
        got = await aside(drain, peer)
        return lost, got, await protocol.lost

    assert run(main()) == ((False, b"open", None) if answer else (True, b"", None))


@rule("buffered.empty-buffer", needs="read")
def an_empty_buffer_is_an_error_and_ends_the_connection(stream, loop, run, errors):
    async def main():
        protocol = BufferedRecorder(loop, 0)
        transport, peer = await stream(protocol)
        await aside(peer.sendall, b"x")
        return transport, protocol, await protocol.lost

    transport, protocol, reason = run(main())
    assert isinstance(reason, RuntimeError)
    assert "empty buffer" in str(reason)
    _check_report(errors.only(), transport, protocol, reason)


class Boom(Exception):
    pass


@rule("buffered.callback-raises", needs="read")
@pytest.mark.parametrize("name", ["get_buffer", "buffer_updated", "eof_received"])
def an_exception_in_a_buffered_callback_is_reported_and_ends_the_connection(stream, loop, run, errors, name):
    def boom(*_):
        raise Boom

    async def main():
        protocol = BufferedRecorder(loop, **{name: boom})
        transport, peer = await stream(protocol)

        def send_and_close():
            peer.sendall(b"x")
            peer.close()

        await aside(send_and_close)
        return transport, protocol, await protocol.lost

    transport, protocol, reason = run(main())
    assert isinstance(reason, Boom)
    assert protocol.calls[-1] == "connection_lost"
    assert protocol.calls.count(name) == 1
    _check_report(errors.only(), transport, protocol, reason)


@rule("buffered.not-a-writable-buffer", needs="read")
@pytest.mark.parametrize("given", [b"read-only", "text", 5], ids=lambda given: type(given).__name__)
def a_thing_that_is_no_writable_buffer_is_reported_and_ends_the_connection(stream, loop, run, errors, given, saw):
    async def main():
        protocol = BufferedRecorder(loop, get_buffer=lambda hint: given)
        transport, peer = await stream(protocol)
        await aside(peer.sendall, b"x")
        return transport, protocol, await protocol.lost

    transport, protocol, reason = run(main())
    assert isinstance(reason, (TypeError, BufferError))
    saw("buffered.not-a-writable-buffer", "TypeError" if isinstance(reason, TypeError) else "BufferError")
    assert "buffer_updated" not in protocol.calls
    _check_report(errors.only(), transport, protocol, reason)


@rule("errors.data-received", "errors.eof-received", "errors.report", needs="read")
@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def an_exception_in_a_callback_is_reported_and_ends_the_connection(stream, loop, run, errors, name):
    def boom(*_):
        raise Boom

    async def main():
        protocol = Recorder(loop, **{name: boom})
        transport, peer = await stream(protocol)

        def send_and_close():
            peer.sendall(b"x")
            peer.close()

        await aside(send_and_close)
        reason = await protocol.lost
        await turns(20)
        return transport, protocol, reason

    transport, protocol, reason = run(main())
    assert isinstance(reason, Boom)
    assert protocol.calls[-2:] == [name, "connection_lost"]
    _check_report(errors.only(), transport, protocol, reason)


@rule("errors.drops-queued-data", needs="read write full_duplex")
def an_exception_in_data_received_aborts_rather_than_flushes(stream, loop, run, errors):
    def boom(_):
        raise Boom

    async def main():
        protocol = Recorder(loop, data_received=boom)
        transport, peer = await stream(protocol)
        transport.write(BLOB)
        await aside(peer.sendall, b"x")
        reason = await protocol.lost  # though the peer reads nothing
        return reason, transport.get_write_buffer_size()

    reason, size = run(main())
    assert isinstance(reason, Boom)
    assert size == 0
    errors.only()


@rule("errors.os-error-in-data-received", needs="read")
def an_os_error_raised_by_data_received_ends_the_connection_with_it(stream, loop, run, errors, saw):
    """Whether it is reported as well is left open: stock asyncio takes it for an error of the connection."""
    error = OSError("mine")

    def boom(_):
        raise error

    async def main():
        protocol = Recorder(loop, data_received=boom)
        _, peer = await stream(protocol)
        await aside(peer.sendall, b"x")
        return await protocol.lost

    assert run(main()) is error
    saw("errors.os-error-in-data-received", "it is reported" if errors.take() else "it is not reported")


@rule("errors.connection-made", needs="read")
def an_exception_in_connection_made_is_reported_and_the_loop_goes_on(stream, loop, run, errors, saw):
    """Left open is whether the connection lives on or is lost."""

    def boom(_):
        raise Boom

    async def main():
        protocol = Recorder(loop, connection_made=boom)
        _, peer = await stream(protocol)

        def send():
            with contextlib.suppress(OSError):
                peer.sendall(b"x")

        await aside(send)
        await protocol.until(lambda: protocol.data or protocol.lost.done())
        return protocol.calls

    calls = run(main())
    assert isinstance(errors.only()["exception"], Boom)
    assert follows_grammar(calls, finished=False), calls
    lost = "connection_lost" in calls
    saw("errors.connection-made", "the connection is lost" if lost else "the connection lives on")


@rule("errors.connection-lost", needs="")
@pytest.mark.parametrize("end", ["close", "abort"])
def an_exception_in_connection_lost_is_reported_and_the_transport_is_gone(stream, loop, run, errors, end):
    def boom(_):
        raise Boom

    async def main():
        protocol = Recorder(loop, connection_lost=boom)
        transport, peer = await stream(protocol)
        getattr(transport, end)()
        await protocol.lost
        await turns(20)
        await aside(drain, peer)  # ends only when the descriptor is closed
        return protocol.calls.count("connection_lost")

    assert run(main()) == 1
    assert isinstance(errors.only()["exception"], Boom)


@rule("errors.exit-passes-through", needs="read")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["data_received", "eof_received"])
def system_exit_and_keyboard_interrupt_leave_run_forever(stream, loop, run, kind, name):
    def boom(*_):
        del protocol.hooks[name]
        raise kind

    protocol = Recorder(loop, **{name: boom})

    async def opened():
        return await stream(protocol)

    _, peer = run(opened())
    if name == "data_received":
        peer.sendall(b"x")
    else:
        peer.close()
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()


def _check_report(context, transport, protocol, reason):
    assert context["exception"] is reason
    assert isinstance(context["message"], str)
    assert context["message"]
    assert context["transport"] is transport
    assert context["protocol"] is protocol
