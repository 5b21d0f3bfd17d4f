"""Rules about sending: what write() takes, order, writelines() and write_eof()."""

from __future__ import annotations

import array
import socket

import pytest

from ..recording import Recorder, pattern, pieces
from ..stream import MORE_THAN_THE_KERNEL_TAKES, aside, close_and_drain, drain, rule, turns


@rule("write.whole-in-order", needs="write")
@pytest.mark.parametrize("size", [1, 100, 65536, 5_000_001])
def one_write_reaches_the_peer_whole(stream, loop, run, size):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(pattern(size))
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == pattern(size)


@rule("write.bytes-like", needs="write")
@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data)), lambda data: memoryview(data)[:]]
)
@pytest.mark.parametrize("size", [5, 2_000_000])
def write_takes_bytes_bytearray_and_memoryview(stream, loop, run, kind, size):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(kind(pattern(size)))
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == pattern(size)


@rule("write.other-types", needs="write")
@pytest.mark.parametrize("data", ["text", 7, None, [1, 2], ("a",), object()], ids=lambda data: type(data).__name__)
def write_of_another_type_raises_type_error_and_sends_nothing(stream, loop, run, data):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        with pytest.raises(TypeError):
            transport.write(data)
        transport.write(b"after")
        return await close_and_drain(transport, protocol, peer)

    assert run(main()) == (b"after", None)


@rule("write.empty", needs="write")
@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")])
def writing_nothing_does_nothing(stream, loop, run, empty):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(empty)
        size = transport.get_write_buffer_size()
        transport.write(b"a")
        transport.write(empty)
        transport.write(b"b")
        return size, *await close_and_drain(transport, protocol, peer)

    assert run(main()) == (0, b"ab", None)


@rule("write.many-in-a-tick", needs="write")
def many_writes_of_one_tick_arrive_whole_and_in_order(stream, loop, run):
    blob = pattern(1_500_000)

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        for piece in pieces(blob, 997):
            transport.write(piece)
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == blob


@rule("write.more-buffers-than-iov-max", needs="write")
def thousands_of_small_writes_behind_a_stalled_peer_all_arrive(stream, loop, run):
    """One vectored send takes IOV_MAX buffers (1024 on Linux); here there are 2000 of them queued."""
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)
    small = pattern(2000 * 3)

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(blob)
        for piece in pieces(small, 3):
            transport.write(piece)
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == blob + small


@rule("write.does-not-block", needs="write")
def a_write_larger_than_the_kernel_takes_returns_and_is_buffered(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, _ = await stream(protocol)
        transport.write(pattern(MORE_THAN_THE_KERNEL_TAKES))
        await turns(20)
        buffered = transport.get_write_buffer_size()
        transport.abort()
        await protocol.lost
        return buffered

    assert 0 < run(main()) <= MORE_THAN_THE_KERNEL_TAKES


@rule("write.mutated-buffer", needs="write")
def a_buffer_changed_after_write_is_sent_as_it_was_or_as_it_is(stream, loop, run, saw):
    """The text leaves open whether write() copies. Never allowed: other bytes, another length, an error later."""
    size = MORE_THAN_THE_KERNEL_TAKES

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        buffer = bytearray(b"a" * size)
        transport.write(buffer)
        buffer[:] = b"b" * size
        transport.write(b"end")
        return await close_and_drain(transport, protocol, peer)

    got, reason = run(main())
    assert reason is None
    assert len(got) == size + 3
    assert got.endswith(b"end")
    assert got[:size].translate(None, b"ab") == b""
    assert b"ba" not in got[:size]  # once what is sent is the new content, it stays the new content
    if b"b" in got[:size]:
        saw("write.mutated-buffer", "from some point on, the bytes of the moment of sending")
    else:
        saw("write.mutated-buffer", "the bytes of the moment of write()")


@rule("write.buffer-copied", needs="write")
def a_buffer_may_be_reused_as_soon_as_write_has_returned(stream, loop, run):
    size = MORE_THAN_THE_KERNEL_TAKES

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        buffer = bytearray(b"a" * size)
        transport.write(buffer)
        buffer[:] = b"b" * size
        buffer.clear()  # BufferError if the transport still holds a view of it
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == b"a" * size


@rule("write.non-contiguous", needs="write")
def a_non_contiguous_view_is_sent_as_its_bytes_or_refused(stream, loop, run, errors, saw):
    """Sent whole; or refused by write() with the connection unharmed; or the connection is lost with the error."""
    view = memoryview(pattern(1000))[::2]

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        refused = False
        try:
            transport.write(view)
        except (BufferError, TypeError, ValueError):
            refused = True
        transport.write(b"after")
        return refused, *await close_and_drain(transport, protocol, peer)

    refused, got, reason = run(main())
    if refused:
        assert (got, reason) == (b"after", None)
        saw("write.non-contiguous", "write() raises BufferError, TypeError or ValueError and nothing is sent")
    elif reason is not None:
        assert got == b""
        assert isinstance(errors.only()["exception"], BufferError)
        saw("write.non-contiguous", "the error is reported and the connection lost with it")
    else:
        assert got == bytes(view) + b"after"
        saw("write.non-contiguous", "its bytes are sent")


@rule("write.wide-items", needs="write")
@pytest.mark.parametrize("items", [100, MORE_THAN_THE_KERNEL_TAKES // 4])
def a_view_of_items_wider_than_a_byte_is_sent_whole(stream, loop, run, items):
    view = memoryview(array.array("I", range(items)))

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(view)
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == view.tobytes()


@rule("write.in-callbacks", needs="read write half_close full_duplex")
def writes_from_within_every_callback_are_sent_in_order(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        protocol.hooks["connection_made"] = lambda transport: transport.write(b"made ")
        protocol.hooks["data_received"] = lambda data: protocol.transport.write(b"data ")
        protocol.hooks["eof_received"] = lambda: protocol.transport.write(b"eof")
        protocol.hooks["connection_lost"] = lambda exc: protocol.transport.write(b"lost")
        _, peer = await stream(protocol)
        greeting = await aside(peer.recv, 100)

        def send_half_close_and_read():
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
            return drain(peer)

        rest = await aside(send_half_close_and_read)
        return greeting + rest, await protocol.lost

    got, reason = run(main())
    assert got == b"made data eof"  # what is written in connection_lost goes nowhere, and is no error
    assert reason is None


@rule("writelines.in-order", needs="write")
@pytest.mark.parametrize("make", [list, tuple, iter, lambda parts: (part for part in parts)])
def writelines_sends_each_element_in_order(stream, loop, run, make):
    parts = [b"one ", bytearray(b"two "), memoryview(b"three "), pattern(400_000)]

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(b"zero ")
        transport.writelines(make(parts))
        transport.write(b"four")
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == b"zero " + b"".join(parts) + b"four"


@rule("writelines.in-order", needs="write")
def writelines_behind_queued_data_keeps_the_order(stream, loop, run):
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)
    small = pattern(3000 * 5)

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(blob)
        transport.writelines(list(pieces(small, 5)))
        transport.write(b"end")
        got, _ = await close_and_drain(transport, protocol, peer)
        return got

    assert run(main()) == blob + small + b"end"


@rule("writelines.empty-list", needs="write")
def writelines_of_nothing_does_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.writelines([])
        transport.writelines(())
        transport.write(b"x")
        return await close_and_drain(transport, protocol, peer)

    assert run(main()) == (b"x", None)


@rule("writelines.empty-elements", needs="write")
@pytest.mark.parametrize("parts", [[b""], [b"ab", b""], [b"", b"ab"], [b"a", b"", b"b", b"", b""]])
def empty_elements_of_writelines_are_nothing(stream, loop, run, parts):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.writelines(parts)
        return await close_and_drain(transport, protocol, peer)

    assert run(main()) == (b"".join(parts), None)


@rule("writelines.other-types", needs="write")
@pytest.mark.parametrize("parts", [[b"sent?", "text"], ["text"], [1], None, 5])
def writelines_of_another_type_raises_type_error_and_sends_nothing(stream, loop, run, parts, saw):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        try:
            transport.writelines(parts)
        except TypeError:
            raised = True
        else:
            raised = False
        transport.write(b"after")
        got, _ = await close_and_drain(transport, protocol, peer)
        return raised, got

    raised, got = run(main())
    assert got == b"after"
    # None is as falsy as the empty list, which some versions look at first.
    assert raised or parts is None
    if parts is None:
        saw("writelines.other-types", "None raises TypeError" if raised else "None is taken for an empty list")


@rule("writelines.after-eof", needs="write half_close")
def writelines_after_write_eof_raises_runtime_error(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write_eof()
        with pytest.raises(RuntimeError):
            transport.writelines([b"late"])
        got = await aside(drain, peer)
        transport.close()
        await protocol.lost
        return got

    assert run(main()) == b""


@rule("writelines.after-close", needs="write")
@pytest.mark.parametrize("end", ["close", "abort"])
def writelines_after_close_is_ignored(stream, loop, run, end):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        getattr(transport, end)()
        transport.writelines([b"late"])
        reason = await protocol.lost
        transport.writelines([b"later"])
        return await aside(drain, peer), reason

    assert run(main()) == (b"", None)


@rule("write-eof.can", needs="write half_close")
def can_write_eof_is_true(stream, loop, run):
    async def main():
        transport, _ = await stream(Recorder(loop))
        return transport.can_write_eof()

    assert run(main()) is True


@rule("write-eof.flushes-first", needs="write half_close")
@pytest.mark.parametrize("size", [0, 10, MORE_THAN_THE_KERNEL_TAKES])
def write_eof_ends_the_stream_after_everything_queued(stream, loop, run, size):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(pattern(size))
        transport.write_eof()
        got = await aside(drain, peer)
        return got, protocol.lost.done(), transport.is_closing()

    got, lost, closing = run(main())
    assert got == pattern(size)
    assert not lost
    assert not closing


@rule("write-eof.still-receives", needs="read write half_close full_duplex")
def data_is_still_received_after_write_eof(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(b"request")
        transport.write_eof()

        def answer():
            request = drain(peer)
            peer.sendall(b"answer to " + request)
            peer.close()

        await aside(answer)
        reason = await protocol.lost
        return bytes(protocol.data), reason, protocol.calls[-2:]

    assert run(main()) == (b"answer to request", None, ["eof_received", "connection_lost"])


@rule("write-eof.twice", needs="write half_close")
def write_eof_twice_or_after_close_does_nothing(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(b"x")
        transport.write_eof()
        transport.write_eof()
        got = await aside(drain, peer)
        transport.close()
        transport.write_eof()
        return got, await protocol.lost

    assert run(main()) == (b"x", None)


@rule("write-eof.then-write", needs="write half_close")
@pytest.mark.parametrize("queued", [0, MORE_THAN_THE_KERNEL_TAKES])
def write_after_write_eof_raises_runtime_error_and_sends_nothing(stream, loop, run, queued):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(pattern(queued))
        transport.write_eof()
        with pytest.raises(RuntimeError):
            transport.write(b"late")
        got = await aside(drain, peer)
        transport.close()
        return got, await protocol.lost

    got, reason = run(main())
    assert got == pattern(queued)
    assert reason is None


@rule("write-eof.then-close", needs="write half_close")
def close_after_write_eof_still_flushes(stream, loop, run):
    blob = pattern(MORE_THAN_THE_KERNEL_TAKES)

    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        transport.write(blob)
        transport.write_eof()
        return await close_and_drain(transport, protocol, peer)

    got, reason = run(main())
    assert got == blob
    assert reason is None
