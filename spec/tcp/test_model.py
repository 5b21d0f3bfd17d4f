"""Random programs on one end of a connection, against a blocking peer and a small model.

A program is a list of operations on the transport, with iterations of the loop between them. The model knows only what
the text promises: what write() accepted is received in order; all of it after a clean end, a prefix after an abort;
the callbacks follow their grammar; connection_lost comes, once, and never from within an operation.
"""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .._kit import clause, peers
from .._kit.contracts.recording import BufferedRecorder, Recorder, follows_grammar, pattern
from .._kit.contracts.stream import aside, turns
from .._kit.seeds import explored
from .makers import shrink

SIZES = st.one_of(st.integers(0, 10), st.sampled_from([1000, 65536, 300_000, 2_000_000]))
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("writelines"), st.lists(st.integers(1, 100_000), min_size=1, max_size=4)),
    st.tuples(st.just("limits"), st.integers(0, 200_000)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["pause_reading", "resume_reading", "write_eof"]), st.none()),
)
ENDS = st.sampled_from(["close", "abort", "write_eof and close", "eof from the peer"])
PEERS = st.fixed_dictionaries(
    {
        "sends": st.lists(st.integers(1, 200_000), max_size=4),
        "reads_late": st.booleans(),
    }
)


class Program:
    """Runs the operations and keeps what must come out at the peer."""

    def __init__(self, protocol, transport):
        self.protocol, self.transport = protocol, transport
        self.accepted = bytearray()
        self.eof = False
        self.salt = 0

    async def step(self, name, argument):
        if name == "write":
            self.write(self.transport.write, self.fresh(argument))
        elif name == "writelines":
            parts = [self.fresh(size) for size in argument]
            self.write(lambda whole: self.transport.writelines(parts), b"".join(parts))
        elif name == "limits":
            self.transport.set_write_buffer_limits(high=argument)
        elif name == "turns":
            await turns(argument)
        elif name == "write_eof":
            self.transport.write_eof()
            self.eof = True
        else:
            getattr(self.transport, name)()
        assert self.transport.get_write_buffer_size() <= len(self.accepted)

    def write(self, send, data):
        if self.eof:
            with pytest.raises(RuntimeError):
                send(data)
        else:
            send(data)
            self.accepted += data

    def fresh(self, size):
        """Bytes unlike those before them, so that a piece in the wrong place shows."""
        self.salt += 1
        return pattern(size + self.salt)[self.salt :]


async def play(loop, kind, operations, end, peer_plan):
    ours, theirs = peers.pair()
    shrink(ours, theirs)
    protocol = kind(loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
    program = Program(protocol, transport)
    sent = b"".join(pattern(size) for size in peer_plan["sends"])

    def send():
        """Whether a reset was met: the error is reported to one call only, so receive() would not see it again."""
        try:
            theirs.sendall(sent)
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False

    def receive():
        got = bytearray()
        while True:
            try:
                piece = theirs.recv(262_144)
            except ConnectionResetError:
                return bytes(got), True
            if not piece:
                return bytes(got), False
            got += piece

    sending = loop.create_task(aside(send))
    receiving = None if peer_plan["reads_late"] else loop.create_task(aside(receive))
    for operation in operations:
        await program.step(*operation)
    if end == "eof from the peer":
        transport.resume_reading()
        # Linux drops what is outside of a closed window, acknowledgements too: who does not read cannot send for ever.
        receiving = receiving or loop.create_task(aside(receive))
        await sending
        await aside(theirs.shutdown, socket.SHUT_WR)
    else:
        calls = list(protocol.calls)
        if end == "write_eof and close":
            transport.write_eof()
        getattr(transport, "abort" if end == "abort" else "close")()
        assert protocol.calls == calls  # nothing is called from within
    receiving = receiving or loop.create_task(aside(receive))
    got, reset = await receiving
    reason = await protocol.lost
    reset |= await sending
    await turns()
    theirs.close()
    return program, protocol, got, reset, reason, sent


@clause("tcp.model.programs")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_random_programs_keep_to_the_model(loop, kind):
    @explored(150)
    @given(st.lists(OPERATIONS, max_size=12), ENDS, PEERS)
    @example([("write", 2_000_000), ("write", 5)], "close", {"sends": [], "reads_late": True})
    @example([("write", 2_000_000), ("write_eof", None)], "close", {"sends": [], "reads_late": True})
    @example([("write", 2_000_000)], "abort", {"sends": [100], "reads_late": True})
    @example([("pause_reading", None), ("write", 10)], "eof from the peer", {"sends": [50], "reads_late": False})
    def check(operations, end, peer_plan):
        program, protocol, got, reset, reason, sent = loop.run_until_complete(
            play(loop, kind, operations, end, peer_plan)
        )
        accepted = bytes(program.accepted)
        assert accepted.startswith(got)
        # Closing with unread data makes the kernel send a reset, which may overtake what was sent before it.
        if not reset and end != "abort":
            assert got == accepted
        assert reason is None  # the peer never ends the connection otherwise than by EOF
        assert sent.startswith(bytes(protocol.data))
        if end == "eof from the peer":
            assert bytes(protocol.data) == sent
        assert follows_grammar(protocol.calls), protocol.calls
        assert protocol.transport.get_write_buffer_size() == 0

    check()
