"""connect_read_pipe() and connect_write_pipe(): what they take, what they refuse, what a transport tells."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import pty
import socket
import tempfile
import tty

import pytest

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, pattern
from .._kit.contracts.stream import aside, close_with_a_transport_open, drain, turns
from .makers import End, file, pipe, reading, writing

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")
OPENERS = {"read": reading, "write": writing}
CONNECTORS = {"read": "connect_read_pipe", "write": "connect_write_pipe"}


async def ended(transport, protocol):
    transport.close()
    return await protocol.lost


@clause("pipes.connect.returns-pair")
@pytest.mark.parametrize("way", CONNECTORS)
def test_the_transport_and_the_protocol_of_the_factory_are_returned_once_connected(loop, run, way):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = pipe() if way == "read" else pipe()[::-1]
        given = file(ours, "rb" if way == "read" else "wb")
        transport, same = await getattr(loop, CONNECTORS[way])(lambda: protocol, given)
        facts = (same is protocol, transport is protocol.transport, list(protocol.calls))
        await ended(transport, protocol)
        os.close(theirs)
        return facts

    assert run(main()) == (True, True, ["connection_made"])


@clause("pipes.connect.interfaces")
@pytest.mark.parametrize(
    ("way", "interface"), [("read", asyncio.ReadTransport), ("write", asyncio.WriteTransport)], ids=["read", "write"]
)
def test_a_transport_has_the_methods_of_its_interface(loop, run, way, interface):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await OPENERS[way](loop, protocol)
        lacking = [name for name in dir(interface) if not name.startswith("_") and not hasattr(transport, name)]
        await ended(transport, protocol)
        peer.close()
        return lacking

    assert run(main()) == []


@clause("pipes.connect.one-way")
def test_the_transport_of_a_reading_end_has_no_methods_of_writing(loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await reading(loop, protocol)
        names = ("write", "writelines", "write_eof", "can_write_eof", "abort", "set_write_buffer_limits")
        has = [name for name in names if hasattr(transport, name)]
        writes = isinstance(transport, asyncio.WriteTransport)
        await ended(transport, protocol)
        peer.close()
        return has, writes

    assert run(main()) == ([], False)


@clause("pipes.connect.regular-file")
@pytest.mark.parametrize("way", CONNECTORS)
def test_a_regular_file_is_refused_with_value_error_and_left_open(loop, run, way):
    with tempfile.TemporaryFile("w+b", buffering=0) as regular:
        with pytest.raises(ValueError):
            run(getattr(loop, CONNECTORS[way])(asyncio.Protocol, regular))
        assert not regular.closed
        assert regular.write(b"usable") == 6


@clause("pipes.connect.directory")
def test_a_directory_is_refused_with_value_error(loop, run):
    class Directory:
        """As no file object can be made of one."""

        def __init__(self, path):
            self.fd = os.open(path, os.O_RDONLY)

        def fileno(self):
            return self.fd

        def close(self):
            os.close(self.fd)

    directory = Directory("/")
    with pytest.raises(ValueError):
        run(loop.connect_read_pipe(asyncio.Protocol, directory))
    directory.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the half-made transport
@clause("pipes.connect.closed-pipe")
@pytest.mark.parametrize("way", CONNECTORS)
def test_a_closed_pipe_is_refused_with_value_error(loop, run, way):
    ours, theirs = pipe()
    given = file(ours, "rb")
    given.close()
    with pytest.raises(ValueError):
        run(getattr(loop, CONNECTORS[way])(asyncio.Protocol, given))
    os.close(theirs)


@clause("pipes.connect.non-blocking")
@pytest.mark.parametrize("way", CONNECTORS)
def test_the_pipe_is_made_non_blocking(loop, run, way):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await OPENERS[way](loop, protocol)
        blocking = os.get_blocking(transport.get_extra_info("pipe").fileno())
        await ended(transport, protocol)
        peer.close()
        return blocking

    assert run(main()) is False


@clause("pipes.connect.factory-raises")
@pytest.mark.parametrize("way", CONNECTORS)
def test_what_the_factory_raises_is_raised_and_the_pipe_stays_open(loop, run, way):
    class Boom(Exception):
        pass

    def boom():
        raise Boom

    ours, theirs = pipe()
    with file(ours, "rb") as first, file(theirs, "wb") as second:
        given = first if way == "read" else second
        with pytest.raises(Boom):
            run(getattr(loop, CONNECTORS[way])(boom, given))
        assert second.write(b"x") == 1
        assert first.read(1) == b"x"


@clause("pipes.connect.cancelled")
@pytest.mark.parametrize("way", CONNECTORS)
def test_a_cancelled_connection_closes_the_pipe(loop, run, way):
    async def main():
        ours, theirs = pipe() if way == "read" else pipe()[::-1]
        given = file(ours, "rb" if way == "read" else "wb")
        task = loop.create_task(getattr(loop, CONNECTORS[way])(lambda: Recorder(loop), given))
        await asyncio.sleep(0)
        task.cancel()
        outcome = await asyncio.gather(task, return_exceptions=True)
        await turns(50)
        os.close(theirs)
        return outcome, given.closed

    [outcome], closed = run(main())
    assert isinstance(outcome, asyncio.CancelledError)
    assert closed


@clause("pipes.connect.fifo")
def test_a_fifo_is_read_and_written(loop, run, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main():
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        sink = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        receiver, sender = Recorder(loop), Recorder(loop)
        await loop.connect_read_pipe(lambda: receiver, file(source, "rb"))
        transport, _ = await loop.connect_write_pipe(lambda: sender, file(sink, "wb"))
        transport.write(pattern(300_000))
        transport.close()
        return await sender.lost, await receiver.lost, bytes(receiver.data)

    assert run(main()) == (None, None, pattern(300_000))


@clause("pipes.connect.socket")
def test_stream_sockets_serve_as_pipes(loop, run):
    async def main(ours, theirs):
        receiver, sender = Recorder(loop), Recorder(loop)
        await loop.connect_read_pipe(lambda: receiver, theirs)
        transport, _ = await loop.connect_write_pipe(lambda: sender, ours)
        transport.write(pattern(500_000))
        transport.close()
        return await sender.lost, await receiver.lost, bytes(receiver.data), ours.fileno(), theirs.fileno()

    ours, theirs = socket.socketpair()
    assert run(main(ours, theirs)) == (None, None, pattern(500_000), -1, -1)


@clause("pipes.connect.terminal")
def test_a_terminal_is_read_and_written(loop, run):
    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave)
        receiver, sender = Recorder(loop), Recorder(loop)
        reader, _ = await loop.connect_read_pipe(lambda: receiver, file(slave, "rb"))
        writer, _ = await loop.connect_write_pipe(lambda: sender, file(os.dup(slave), "wb"))
        with End(master) as peer:
            await aside(peer.sendall, b"typed")
            await receiver.received(5)
            writer.write(b"shown")
            got = await aside(peer.recv, 100)
            writer.close()
            reader.close()
            reasons = await sender.lost, await receiver.lost
        return bytes(receiver.data), got, reasons

    assert run(main()) == (b"typed", b"shown", (None, None))


@clause("pipes.connect.one-terminal-both-ways")
def test_one_terminal_is_read_and_written_by_one_descriptor(loop, run):
    async def main():
        master, slave = pty.openpty()
        tty.setraw(slave)
        given = file(slave, "r+b")
        receiver, sender = Recorder(loop), Recorder(loop)
        reader, _ = await loop.connect_read_pipe(lambda: receiver, given)
        writer, _ = await loop.connect_write_pipe(lambda: sender, given)
        with End(master) as peer:
            writer.write(pattern(100_000))
            got = bytearray()
            while len(got) < 100_000:
                got += await aside(peer.recv, 65536)
            await aside(peer.sendall, b"typed")
            await receiver.received(5)
            writer.close()
            reader.close()
            reasons = await sender.lost, await receiver.lost
            await turns(1)
        return bytes(receiver.data), bytes(got) == pattern(100_000), reasons, given.closed

    assert run(main()) == (b"typed", True, (None, None), True)


@clause("pipes.connect.both-ends-in-one-loop")
def test_both_ends_of_a_pipe_may_live_in_one_loop(loop, run):
    async def main():
        source, sink = pipe()
        receiver, sender = Recorder(loop), Recorder(loop)
        await loop.connect_read_pipe(lambda: receiver, file(source, "rb"))
        transport, _ = await loop.connect_write_pipe(lambda: sender, file(sink, "wb"))
        transport.write(pattern(1_000_003))
        await receiver.received(1_000_003)
        transport.close()
        return await sender.lost, await receiver.lost, bytes(receiver.data) == pattern(1_000_003)

    assert run(main()) == (None, None, True)


@clause("pipes.info.pipe")
@pytest.mark.parametrize("way", CONNECTORS)
def test_get_extra_info_tells_the_pipe(loop, run, way):
    async def main():
        protocol = Recorder(loop)
        ours, theirs = pipe() if way == "read" else pipe()[::-1]
        given = file(ours, "rb" if way == "read" else "wb")
        transport, _ = await getattr(loop, CONNECTORS[way])(lambda: protocol, given)
        open_ = transport.get_extra_info("pipe") is given
        await ended(transport, protocol)
        os.close(theirs)
        return open_, transport.get_extra_info("pipe") is given

    assert run(main()) == (True, True)


@clause("pipes.info.repr")
@pytest.mark.parametrize("way", CONNECTORS)
def test_repr_tells_whether_it_is_closing_or_closed(loop, run, way):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await OPENERS[way](loop, protocol)
        shown = [repr(transport)]
        transport.close()
        shown.append(repr(transport))
        await protocol.lost
        await turns(1)
        shown.append(repr(transport))
        peer.close()
        return shown

    open_, closing, closed = run(main())
    assert "clos" not in open_
    assert "fd=" in open_
    assert "closing" in closing
    assert "closed" in closed


@clause("pipes.context.of-creation")
def test_callbacks_run_in_the_context_that_made_the_transport(loop, run):
    async def main():
        seen = {}
        protocol = Recorder(loop)
        for name in ("connection_made", "data_received"):
            protocol.hooks[name] = lambda *_, name=name: seen.update({name: VARIABLE.get()})
        VARIABLE.set("maker")
        _, peer = await reading(loop, protocol)
        VARIABLE.set("later")
        await aside(peer.sendall, b"x")
        await protocol.called("data_received")
        peer.close()
        await protocol.lost
        return seen

    assert run(main()) == {"connection_made": "maker", "data_received": "maker"}


@clause("pipes.lifetime.unclosed-warns")
@pytest.mark.parametrize("way", CONNECTORS)
def test_a_transport_left_open_by_a_closed_loop_warns_and_closes_its_pipe(new_loop, way):
    loop = new_loop()

    async def opened():
        transport, peer = await OPENERS[way](loop, Recorder(loop))
        return transport.get_extra_info("pipe").fileno(), peer

    fd, peer = loop.run_until_complete(opened())
    close_with_a_transport_open(loop, fd)
    if way == "read":
        with pytest.raises(BrokenPipeError):
            peer.sendall(b"x")
    else:
        assert drain(peer) == b""
    peer.close()


@clause("pipes.fd.reused-gets-no-old-data")
def test_a_descriptor_number_used_again_gets_nothing_of_the_old_pipe(loop, run):
    async def main():
        seen = []
        for round_ in range(20):
            protocol = Recorder(loop)
            transport, peer = await reading(loop, protocol)
            number = transport.get_extra_info("pipe").fileno()
            await aside(peer.sendall, b"%d" % round_)
            await protocol.called("data_received")
            await ended(transport, protocol)
            peer.close()
            seen.append((number, bytes(protocol.data)))
        return seen

    seen = run(main())
    assert [data for _, data in seen] == [b"%d" % round_ for round_ in range(20)]
    assert len({number for number, _ in seen}) < 20, "no number came back: the test tested nothing"


def occupied(number):
    """The ends of a new pipe, whose writing end also has the fd `number`."""
    first, sink = pipe()
    source = os.dup(first)
    if first != number:
        os.close(first)
    os.dup2(sink, number)
    return source, sink


@clause("pipes.fd.closed-under-transport")
def test_what_is_written_after_the_pipe_was_closed_reaches_no_other_file(loop, run, errors):
    """The descriptor's number is another pipe's by then."""

    async def main():
        protocol = Recorder(loop)
        transport, peer = await writing(loop, protocol)
        given = transport.get_extra_info("pipe")
        number = given.fileno()
        given.close()
        others, sink = occupied(number)
        transport.write(b"astray")
        await turns(5)
        with peer, file(others, "rb") as end:
            os.set_blocking(others, False)
            astray = end.read(100) or b""
            transport.abort()
            await turns(5)
        with contextlib.suppress(OSError):
            os.close(number)  # unless the transport did
        if sink != number:
            os.close(sink)
        return astray

    assert run(main()) == b""
    errors.take()


@clause("pipes.connect.streams")
def test_stream_reader_and_writer_work_over_pipes(loop, run):
    """The recipe by which programs read their standard input and write their standard output."""

    async def main():
        (source, their_sink), (their_source, sink) = pipe(), pipe()
        reader = asyncio.StreamReader()
        source_transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file(source, "rb")
        )
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file(sink, "wb"))
        writer = asyncio.StreamWriter(transport, protocol, None, loop)

        def filter_lines():
            with End(their_source) as incoming, End(their_sink) as outgoing:
                data = drain(incoming)
                outgoing.sendall(data.upper())

        with peers.thread(filter_lines):
            for number in range(10_000):
                writer.write(b"line %d\n" % number)
                await writer.drain()
            writer.write_eof()
            lines = [line async for line in reader]
        source_transport.close()
        await turns(5)
        return lines

    assert run(main()) == [b"LINE %d\n" % number for number in range(10_000)]


@clause("pipes.connect.one-object-twice")
def test_a_pipe_that_has_a_transport_can_be_given_again(loop, run):
    """Two loggers of a program have its standard output each."""

    async def main():
        source, sink = pipe()
        made = file(sink, "wb")
        first, second = Recorder(loop), Recorder(loop)
        with End(source) as peer:
            await loop.connect_write_pipe(lambda: first, made)
            await loop.connect_write_pipe(lambda: second, made)
            for protocol, data in ((first, b"one "), (second, b"two "), (first, b"three")):
                protocol.transport.write(data)
            got = peer.recv(100)
            first.transport.close()
            second.transport.close()
            reasons = await first.lost, await second.lost
            return got, reasons, made.closed, peer.recv(100)

    assert run(main()) == (b"one two three", (None, None), True, b"")
