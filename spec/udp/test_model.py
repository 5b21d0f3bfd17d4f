"""Random programs on an endpoint whose peer reads when told to, against a small model.

The model knows only what the text promises: what sendto() took is received in order, each datagram by itself; all of it
after a close, a prefix after an abort; pauses and resumes alternate; connection_lost comes, once, with None, and never
from within an operation.
"""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .._kit import clause
from .._kit.contracts.stream import turns
from .._kit.seeds import explored
from .recording import Datagrams, filling_pair, needs_a_full_sender, numbered

LETTERS = {
    "connection_made": "m",
    "datagram_received": "d",
    "error_received": "e",
    "pause_writing": "p",
    "resume_writing": "r",
    "connection_lost": "l",
}
OPERATIONS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([6, 7, 100, 1000, 4000])),
    st.tuples(st.just("burst"), st.integers(1, 60)),
    st.tuples(st.just("read"), st.integers(1, 40)),
    st.tuples(st.just("answer"), st.integers(0, 5)),
    st.tuples(st.just("limits"), st.sampled_from([0, 500, 5000, 65536])),
    st.tuples(st.just("turns"), st.integers(1, 5)),
)


class Program:
    """Runs the operations and keeps what must come out at both ends."""

    def __init__(self, protocol, theirs):
        self.protocol, self.transport, self.theirs = protocol, protocol.transport, theirs
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.answers: list[bytes] = []

    async def step(self, name, argument):
        if name == "send":
            self.send(argument)
        elif name == "burst":
            for _ in range(argument):
                self.send(1000)
        elif name == "read":
            self.read(argument)
        elif name == "answer":
            with contextlib.suppress(BlockingIOError):
                self.theirs.send(bytes(argument))
                self.answers.append(bytes(argument))
        elif name == "limits":
            self.transport.set_write_buffer_limits(high=argument)
        else:
            await turns(argument)

    def send(self, size):
        data = numbered(len(self.sent), size)
        self.sent.append(data)
        self.transport.sendto(data)

    def read(self, count):
        with contextlib.suppress(BlockingIOError):
            for _ in range(count):
                self.got.append(self.theirs.recv(65536))


async def play(loop, ours, theirs, operations, end):
    protocol = Datagrams(loop)
    await loop.create_datagram_endpoint(lambda: protocol, sock=ours)
    theirs.setblocking(False)
    program = Program(protocol, theirs)
    for operation in operations:
        await program.step(*operation)
    await turns(20)
    assert protocol.data == program.answers
    calls = list(protocol.calls)
    getattr(protocol.transport, end)()
    assert protocol.calls == calls  # nothing is called from within
    while not protocol.lost.done():
        program.read(1000)
        await turns(1)
    program.read(1000)
    await turns()
    return program, protocol


@clause("udp.model.programs")
@pytest.mark.timeout(120)
def test_random_programs_keep_to_the_model(loop):
    needs_a_full_sender()

    @explored(150)
    @given(st.lists(OPERATIONS, max_size=15), st.sampled_from(["close", "abort"]))
    @example([("burst", 60), ("send", 6)], "close")
    @example([("limits", 500), ("burst", 60), ("read", 30), ("turns", 5), ("burst", 20)], "close")
    @example([("burst", 60), ("read", 3)], "abort")
    @example([("burst", 60), ("answer", 0), ("answer", 3)], "close")
    def check(operations, end):
        with filling_pair() as (ours, theirs):
            program, protocol = loop.run_until_complete(play(loop, ours, theirs, operations, end))
        assert program.sent[: len(program.got)] == program.got
        if end == "close":
            assert program.got == program.sent
        assert protocol.data == program.answers
        assert protocol.lost.result() is None
        word = "".join(LETTERS[name] for name in protocol.calls)
        assert re.fullmatch("m[dpr]*l", word), word
        assert re.fullmatch("(pr)*p?", "".join(letter for letter in word if letter in "pr")), word

    check()
