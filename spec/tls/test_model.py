"""Random programs on one end of a TLS connection, against a blocking peer and a small model.

A program is a list of operations on the transport and on the peer, with iterations of the loop between them. The model
knows only what the text promises: what is written is received in order, all of it after an orderly end; what the peer
sends is delivered in order, never while reading is paused, to the protocol that is set; the callbacks follow their
grammar; connection_lost comes, once, and never from within an operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .._kit import clause, peers
from .._kit.contracts.recording import Recorder, follows_grammar, pattern, pieces
from .._kit.contracts.stream import aside, turns
from .._kit.seeds import explored
from . import certificates
from .connections import SIDES, Buffered, connect

SIZES = st.one_of(st.integers(0, 10), st.sampled_from([1000, 16_384, 65_536, 300_000, 1_000_000]))
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("writelines"), st.lists(st.integers(1, 40_000), min_size=1, max_size=4)),
    st.tuples(st.just("limits"), st.integers(1, 200_000)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["pause", "resume"]), st.none()),
    st.tuples(st.just("protocol"), st.sampled_from([0, 0, 1000, 20_000])),
    st.tuples(
        st.just("peer sends"),
        st.tuples(
            st.integers(1, 200_000),
            st.sampled_from([100, 5000, 16_384, 40_000]),  # data in each write, and so in each record
            st.sampled_from([977, 20_000, 1 << 20]),  # ciphertext in each segment
        ),
    ),
)
ENDS = st.sampled_from(["close", "close at once", "abort", "peer ends", "peer is cut", "garbage"])


class Program:
    """Runs the operations, and keeps what must come out at each side."""

    def __init__(self, loop):
        self.loop = loop
        self.history = []
        self.received = bytearray()
        self.written = bytearray()
        self.sent = bytearray()
        self.paused = False
        self.salt = 0
        self.lost = loop.create_future()
        self.all_received = None
        self.all_sent = None
        self.protocol = self.fresh_protocol(0)
        self.segments = queue.SimpleQueue()

    def fresh_protocol(self, size):
        """A Protocol, or a BufferedProtocol with a buffer of `size` bytes."""
        protocol = Buffered(self.loop, size) if size else Recorder(self.loop)
        for name in ("connection_made", "eof_received", "pause_writing"):
            protocol.hooks[name] = lambda *_, name=name: self.history.append(name)
        protocol.hooks["resume_writing"] = self.resume
        protocol.hooks["connection_lost"] = self.lose
        protocol.hooks["data_received"] = self.deliver
        protocol.hooks["buffer_updated"] = lambda nbytes: self.deliver(bytes(protocol.buffer[:nbytes]))
        return protocol

    def lose(self, reason):
        """The connection is lost."""
        self.history.append("connection_lost")
        if not self.lost.done():
            self.lost.set_result(reason)
        if self.all_received is not None and not self.all_received.done():
            self.all_received.set_result(None)

    def deliver(self, data):
        """Data came to a protocol."""
        assert data
        assert not self.paused, "delivered while reading is paused"
        self.history.append("data_received")
        self.received += data
        if self.all_received is not None and len(self.received) >= len(self.sent) and not self.all_received.done():
            self.all_received.set_result(None)

    def resume(self):
        """Writing may go on."""
        self.history.append("resume_writing")
        if self.all_sent is not None and not self.all_sent.done():
            self.all_sent.set_result(None)

    async def everything_sent(self):
        """Wait until all that was written has left, or the connection is lost."""
        self.transport.set_write_buffer_limits(high=0)
        if self.transport.get_write_buffer_size():
            self.all_sent = self.loop.create_future()
            await asyncio.wait([self.all_sent, self.lost], return_when=asyncio.FIRST_COMPLETED)

    async def everything(self):
        """Wait until all that the peer sent was received, or the connection is lost."""
        if len(self.received) < len(self.sent) and not self.lost.done():
            self.all_received = self.loop.create_future()
            await self.all_received

    def fresh(self, size):
        """Bytes unlike those before them, so that a piece in the wrong place shows."""
        self.salt += 1
        return pattern(size + self.salt)[self.salt :]

    async def step(self, name, argument):
        """Run one operation."""
        transport, told = self.transport, len(self.history)
        match name:
            case "write":
                data = self.fresh(argument)
                self.written += data
                transport.write(data)
            case "writelines":
                parts = [self.fresh(size) for size in argument]
                self.written += b"".join(parts)
                transport.writelines(parts)
            case "limits":
                transport.set_write_buffer_limits(high=argument)
            case "pause":
                self.paused = True
                transport.pause_reading()
                assert not transport.is_reading()
            case "resume":
                self.paused = False
                transport.resume_reading()
                assert transport.is_reading()
            case "protocol":
                self.protocol = self.fresh_protocol(argument)
                transport.set_protocol(self.protocol)
            case "peer sends":
                size, record, segment = argument
                data = self.fresh(size)
                self.sent += data
                for piece in pieces(self.peer.seal(*pieces(data, record)), segment):
                    self.segments.put(piece)
        inline = self.history[told:]
        assert set(inline) <= {"pause_writing", "resume_writing"}, f"{inline} within {name}"
        if name == "turns":
            await turns(argument)

    def send_segments(self):
        """The peer's thread that sends: what is queued, up to None. Whether everything could be sent."""
        with contextlib.suppress(OSError):
            while (segment := self.segments.get(timeout=peers.TIMEOUT)) is not None:
                self.peer.sock.sendall(segment)
            return True
        return False

    def receive(self):
        """The peer's thread that receives: the data, and whether a close_notify was behind it."""
        got = bytearray()
        try:
            while data := self.peer.recv(262_144):
                got += data
        except OSError:
            return bytes(got), False
        return bytes(got), True


async def play(loop, side, version, operations, end, reads_late):
    """Run a program to its end; the program, what the peer got, and with what the connection was lost."""
    program = Program(loop)
    program.transport, program.peer = await connect(loop, program.protocol, side, version, ssl_shutdown_timeout=5)
    transport, peer = program.transport, program.peer
    sending = loop.create_task(aside(program.send_segments))
    receiving = None if reads_late else loop.create_task(aside(program.receive))
    for operation in operations:
        await program.step(*operation)
    if end not in ("abort", "close at once"):
        await program.step("resume", None)
        await program.everything()
    told = len(program.history)
    match end:
        case "close" | "close at once":
            transport.close()
        case "abort":
            transport.abort()
        case "peer ends":
            # What becomes of several writes that are queued by then is a clause that not every loop keeps.
            receiving = receiving or loop.create_task(aside(program.receive))
            await program.everything_sent()
            program.segments.put(peer.farewell())
        case "garbage":
            program.segments.put(bytes(range(256)))
    assert transport.is_closing() or end not in ("close", "close at once", "abort")
    assert "connection_lost" not in program.history[told:]
    program.segments.put(None)
    receiving = receiving or loop.create_task(aside(program.receive))
    if end == "peer is cut":
        await sending
        peer.sock.shutdown(2)
    elif end.startswith("close"):
        got, clean = await receiving
        if clean:
            await aside(_quietly, peer.end)
    got, clean = await receiving
    reason = await program.lost
    await turns()
    await sending
    peer.cut()
    return program, got, clean, reason


def _quietly(function):
    with contextlib.suppress(OSError):
        function()


@clause("tls.model.programs")
@pytest.mark.timeout(120)
@SIDES
def test_random_programs_keep_to_the_model(loop, run, side):
    @explored(120)
    @given(
        st.lists(OPERATIONS, max_size=12), ENDS, st.booleans(), st.sampled_from([certificates.V1_2, certificates.V1_3])
    )
    @example([("write", 1_000_000), ("write", 5)], "close", True, certificates.V1_3)
    @example([("write", 1_000_000), ("peer sends", (200_000, 100, 977))], "peer ends", True, certificates.V1_3)
    @example([("pause", None), ("peer sends", (200_000, 5000, 977))], "close at once", False, certificates.V1_3)
    @example(
        [("peer sends", (50_000, 100, 1 << 20)), ("turns", 2), ("protocol", 1000), ("turns", 1), ("protocol", 0)],
        "close",
        False,
        certificates.V1_2,
    )
    def check(operations, end, reads_late, version):
        program, got, clean, reason = run(play(loop, side, version, operations, end, reads_late))
        written, sent = bytes(program.written), bytes(program.sent)
        assert written.startswith(got)
        assert sent.startswith(program.received)
        assert follows_grammar(program.history), program.history
        assert program.transport.get_write_buffer_size() == 0
        if clean:
            assert got == written, "close_notify in front of data that was written"
        match end:
            case "close" | "peer ends":
                assert clean
                assert reason is None
                assert program.received == sent
            case "abort":
                assert reason is None
                assert not clean
            case "garbage":
                assert isinstance(reason, OSError)
                assert program.received == sent
            case "peer is cut":
                assert program.received == sent
                assert isinstance(reason, (OSError, type(None)))
            case "close at once":
                # Data that crosses a close_notify may end the connection before all is flushed.
                assert isinstance(reason, (OSError, type(None)))
                assert clean or program.sent

    check()
