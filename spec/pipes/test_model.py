"""Random programs on one end of a pipe, against a blocking end and a small model.

A program is a list of operations on the transport and on the far end, with iterations of the loop between them. The
model knows what the text promises: bytes arrive in order; all of them after a clean end, a prefix after an abort or a
reader that goes; nothing arrives while reading is paused; connection_lost comes once, never from within an operation.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .._kit import clause
from .._kit.contracts.recording import Recorder, follows_grammar, pattern
from .._kit.contracts.stream import aside, drain, turns
from .._kit.seeds import explored
from .makers import reading, writing

SIZES = st.one_of(st.integers(0, 10), st.sampled_from([1000, 4096, 4097, 65536, 65537, 300_000]))
WRITING = st.one_of(
    st.tuples(st.just("write"), SIZES),
    st.tuples(st.just("writelines"), st.lists(st.integers(1, 50_000), min_size=1, max_size=4)),
    st.tuples(st.just("limits"), st.integers(0, 200_000)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("peer reads"), st.integers(1, 100_000)),
)
READING = st.one_of(
    st.tuples(st.just("peer writes"), st.integers(1, 20_000)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["pause_reading", "resume_reading", "blocking"]), st.none()),
)
CHECKS = explored(150)


class Source:
    """Bytes unlike those before them, so that a piece in the wrong place shows; `all` of them so far."""

    def __init__(self):
        self.all = bytearray()

    def next(self, size):
        """The bytes that would come next."""
        start = len(self.all) % 251
        return pattern(start + size)[start:]

    def fresh(self, size):
        """The next bytes, taken."""
        piece = self.next(size)
        self.all += piece
        return piece


def read_now(fd, size):
    """What is in a pipe, without waiting for more."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return b""


def write_now(fd, data):
    """As much of `data` as a pipe takes at once."""
    try:
        return data[: os.write(fd, data)]
    except BlockingIOError:
        return b""


async def write_by(loop, operations, end):
    protocol, source, got = Recorder(loop), Source(), bytearray()
    transport, peer = await writing(loop, protocol)
    for name, argument in operations:
        if name == "write":
            transport.write(source.fresh(argument))
        elif name == "writelines":
            transport.writelines([source.fresh(size) for size in argument])
        elif name == "limits":
            transport.set_write_buffer_limits(high=argument)
        elif name == "turns":
            await turns(argument)
        else:
            got += read_now(peer.fd, argument)
        assert transport.get_write_buffer_size() + len(got) <= len(source.all)
    calls = list(protocol.calls)
    if end == "the reader goes":
        peer.close()
        queued = transport.get_write_buffer_size()
    else:
        getattr(transport, end)()
        assert protocol.calls == calls  # nothing is called from within
        got += await aside(drain, peer)
        queued = 0
    reason = await protocol.lost
    await turns()
    peer.close()
    return protocol, bytes(source.all), bytes(got), reason, queued


async def read_by(loop, operations, end):
    protocol, source = Recorder(loop), Source()
    transport, peer = await reading(loop, protocol)
    paused_at = None
    for name, argument in operations:
        if name == "peer writes":
            source.all += write_now(peer.fd, source.next(argument))
        elif name == "turns":
            await turns(argument)
        elif name == "blocking":
            os.set_blocking(transport.get_extra_info("pipe").fileno(), True)
        else:
            getattr(transport, name)()
            paused_at = len(protocol.data) if name == "pause_reading" else None
        assert paused_at in (None, len(protocol.data))
    calls = list(protocol.calls)
    if end == "close":
        transport.close()
        assert protocol.calls == calls
    else:
        transport.resume_reading()
        peer.close()
    reason = await protocol.lost
    await turns()
    peer.close()
    return protocol, bytes(source.all), reason


@clause("pipes.model.writing")
@pytest.mark.timeout(120)
def test_random_programs_of_writing_keep_to_the_model(loop):
    @CHECKS
    @given(st.lists(WRITING, max_size=12), st.sampled_from(["close", "write_eof", "abort", "the reader goes"]))
    @example([("write", 300_000), ("write", 5)], "close")
    @example([("write", 300_000), ("turns", 5), ("peer reads", 65536), ("turns", 5)], "the reader goes")
    @example([("write", 65536), ("write", 1), ("peer reads", 1), ("turns", 1)], "write_eof")
    def check(operations, end):
        protocol, written, got, reason, queued = loop.run_until_complete(write_by(loop, operations, end))
        assert written.startswith(got)
        if end in ("close", "write_eof"):
            assert got == written
        if end == "the reader goes":
            assert isinstance(reason, BrokenPipeError) if queued else reason is None or isinstance(reason, OSError)
        else:
            assert reason is None
        assert follows_grammar(protocol.calls), protocol.calls

    check()


@clause("pipes.model.reading")
@pytest.mark.timeout(120)
def test_random_programs_of_reading_keep_to_the_model(loop):
    @CHECKS
    @given(st.lists(READING, max_size=12), st.sampled_from(["close", "the writer goes"]))
    @example([("pause_reading", None), ("peer writes", 20_000)], "the writer goes")
    @example([("blocking", None), ("peer writes", 10), ("turns", 5), ("peer writes", 10)], "the writer goes")
    def check(operations, end):
        protocol, written, reason = loop.run_until_complete(read_by(loop, operations, end))
        assert written.startswith(bytes(protocol.data))
        if end == "the writer goes":
            assert bytes(protocol.data) == written
        assert reason is None
        assert follows_grammar(protocol.calls), protocol.calls

    check()
