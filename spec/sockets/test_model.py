"""Random use of sock_recv, sock_recv_into and sock_sendall against the model of a stream: a sequence of bytes.

Receiving: whatever is received, cancelled and sent in whatever order, the bytes received are the bytes sent, in order,
none lost, none twice. Sending: of each piece that was sent whole all bytes arrive, of each cancelled one a prefix, and
nothing is out of order.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause, peers
from .._kit.seeds import explored
from ..readers_writers.helpers import pair
from .helpers import pattern, turns

MODEL = explored(100)
sizes = st.integers(1, 50)
pauses = st.integers(0, 4)


class Receiver:
    """One end of a stream that receives by operations, and the model of what was sent to it."""

    def __init__(self, loop, ours, theirs):
        self.loop = loop
        self.ours = ours
        self.theirs = theirs
        self.source = pattern(100_000)
        self.sent = 0
        self.got = b""
        self.waiting = None

    def feed(self, count):
        self.theirs.send(self.source[self.sent : self.sent + count])
        self.sent += count

    def start(self, count, into):
        if self.waiting is None:
            self.waiting = asyncio.create_task(self.receive(count, into))

    async def receive(self, count, into):
        if not into:
            return await self.loop.sock_recv(self.ours, count)
        buffer = bytearray(count)
        return bytes(buffer[: await self.loop.sock_recv_into(self.ours, buffer)])

    async def stop(self, cancel):
        """End the waiting receive: by cancelling it, or by seeing to it that there is something to receive."""
        if self.waiting is None:
            return
        if cancel:
            self.waiting.cancel()
        elif len(self.got) == self.sent:
            self.feed(1)
        try:
            async with asyncio.timeout(2):
                self.got += await self.waiting
        except asyncio.CancelledError:
            assert self.waiting.cancelled()
        self.waiting = None
        assert self.got == self.source[: len(self.got)]

    def direct(self, count):
        try:
            chunk = self.ours.recv(count)
        except BlockingIOError:
            return
        self.got += chunk

    async def finish(self):
        await self.stop(cancel=False)
        self.theirs.shutdown(socket.SHUT_WR)
        while chunk := await self.loop.sock_recv(self.ours, 1000):
            self.got += chunk
        assert self.got == self.source[: self.sent]


receiving = st.one_of(
    st.tuples(st.just("feed"), sizes),
    st.tuples(st.just("start"), sizes, st.booleans()),
    st.tuples(st.just("pause"), pauses),
    st.just(("cancel",)),
    st.tuples(st.just("race"), sizes, sizes, pauses),
    st.tuples(st.just("abandon"), sizes, sizes, pauses),
    st.just(("await",)),
    st.tuples(st.just("direct"), sizes),
)


async def play(receiver, operations, anytime):
    """Apply `operations`; unless `anytime`, a receive is cancelled only while there is nothing to receive."""
    for operation in operations:
        match operation:
            case ("feed", count):
                receiver.feed(count)
            case ("start", count, into):
                receiver.start(count, into)
            case ("pause", count):
                await turns(count)
            case ("cancel",):
                await receiver.stop(cancel=anytime or receiver.sent == len(receiver.got))
            case ("race", count, fed, pause):
                receiver.start(count, into=False)
                await turns(2)
                receiver.feed(fed)
                if anytime:
                    await turns(pause)
                    await receiver.stop(cancel=True)
            case ("abandon", count, fed, pause):
                receiver.start(count, into=False)
                await turns(2)
                await receiver.stop(cancel=anytime or receiver.sent == len(receiver.got))
                receiver.feed(fed)
                await turns(pause)
            case ("await",):
                await receiver.stop(cancel=False)
            case ("direct", count):
                # While a receive is under way it may hold bytes that come before those of a direct call.
                if receiver.waiting is None:
                    receiver.direct(count)
    await receiver.finish()


@clause("sockets.recv.many-in-order", "sockets.cancel.while-waiting", "sockets.recv.own-direct-calls")
@MODEL
@given(operations=st.lists(receiving, max_size=40))
def test_receives_behave_like_the_model(loop, run, operations):
    with pair() as (ours, theirs):
        run(play(Receiver(loop, ours, theirs), operations, anytime=False))


@clause("sockets.cancel.after-readiness")
@MODEL
@given(operations=st.lists(receiving, max_size=40))
def test_receives_that_are_cancelled_at_any_moment_behave_like_the_model(loop, run, operations):
    with pair() as (ours, theirs):
        run(play(Receiver(loop, ours, theirs), operations, anytime=True))


sending = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 300_000)),
    st.tuples(st.just("cancelled send"), st.integers(1, 300_000), pauses),
    st.tuples(st.just("read"), st.integers(1, 100_000)),
)


@clause("sockets.sendall.sends-everything", "sockets.sendall.cancelled-prefix")
@pytest.mark.parametrize("make", [peers.pair, peers.unix_pair], ids=["tcp", "unix"])
@MODEL
@given(operations=st.lists(sending, max_size=12))
def test_sends_behave_like_the_model(loop, run, make, operations):
    """Piece number n is made of bytes of the value n, so that the stream tells what came of each."""

    async def main(ours, theirs):
        pieces = []  # (size, whole)
        got = bytearray()

        def read(count):
            try:
                got.extend(theirs.recv(count))
            except BlockingIOError:
                return

        for number, operation in enumerate(operations):
            match operation:
                case ("send", size):
                    task = asyncio.create_task(loop.sock_sendall(ours, bytes([number]) * size))
                    while not task.done():
                        read(70_000)
                        await asyncio.sleep(0)
                    assert task.result() is None
                    pieces.append((number, size, True))
                case ("cancelled send", size, pause):
                    task = asyncio.create_task(loop.sock_sendall(ours, bytes([number]) * size))
                    await turns(pause)
                    task.cancel()
                    await asyncio.wait([task])
                    pieces.append((number, size, not task.cancelled()))
                case ("read", count):
                    read(count)
        ours.shutdown(socket.SHUT_WR)
        theirs.setblocking(True)
        theirs.settimeout(15)
        got.extend(peers.recv_all(theirs))

        runs = {value: len(list(group)) for value, group in itertools.groupby(got)}
        assert list(runs) == sorted(runs)
        for number, size, whole in pieces:
            assert runs.pop(number, 0) == size if whole else runs.pop(number, 0) <= size
        assert not runs

    with ExitStack() as stack:
        ours, theirs = make()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        theirs.setblocking(False)
        run(main(ours, theirs))
