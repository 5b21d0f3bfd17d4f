"""Random use of readers and writers against a model of level-triggering.

The model, per socket: which callback is registered in each direction (at most one), and, by the kernel's own word
(`poll(2)`), whether the fd is ready. Two rules are checked:
- safety, in every call: the callback is the registered one and its fd is ready at that moment;
- liveness, after every settling: each registered callback whose fd is ready has been called again.
"""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause
from .._kit.seeds import explored
from .helpers import SETTLE, drain, fill, is_ready, pair_at

COUNT = 3
POLL = {"reader": select.POLLIN, "writer": select.POLLOUT}

sockets = st.integers(0, COUNT - 1)
directions = st.sampled_from(["reader", "writer"])
# What a callback does each time it is called.
behaviours = st.one_of(
    st.just(("nothing",)),
    st.tuples(st.just("move"), st.integers(1, 4)),  # read some bytes, or fill the buffer
    st.just(("remove itself",)),
    st.tuples(st.just("remove"), sockets, directions),
    st.tuples(st.just("replace"), sockets, directions),
)
operations = st.one_of(
    st.tuples(st.just("add"), sockets, directions, behaviours),
    st.tuples(st.just("remove"), sockets, directions),
    st.tuples(st.just("peer sends"), sockets, st.integers(1, 5)),
    st.tuples(st.just("peer drains"), sockets),
    st.tuples(st.just("fill"), sockets),
    st.tuples(st.just("drain"), sockets),
    st.tuples(st.just("peer closes"), sockets),
    st.tuples(st.just("reopen"), sockets, st.booleans()),
    st.just(("settle",)),
)


class Machine:
    """A loop, its sockets, and the model."""

    def __init__(self, loop, stack):
        self.loop = loop
        self.stack = stack
        self.pairs = []
        self.fds = []
        self.registered = {}
        """(socket, direction) -> (token, behaviour) of the one registered callback"""
        self.calls = {}
        """token -> calls since the last settling"""
        self.wrong = []
        for _ in range(COUNT):
            ours, theirs = socket.socketpair()
            for sock in (ours, theirs):
                sock.setblocking(False)
                stack.callback(sock.close)
            self.pairs.append((ours, theirs))
            self.fds.append(ours.fileno())

    def add(self, index, direction, behaviour):
        token = object()
        self.registered[index, direction] = token, behaviour
        self.calls[token] = 0
        add = self.loop.add_reader if direction == "reader" else self.loop.add_writer
        add(self.fds[index], self.called, index, direction, token)

    def remove(self, index, direction):
        self.registered.pop((index, direction), None)
        remove = self.loop.remove_reader if direction == "reader" else self.loop.remove_writer
        remove(self.fds[index])

    def called(self, index, direction, token):
        registered, behaviour = self.registered.get((index, direction), (None, None))
        if registered is not token:
            self.wrong.append(f"the {direction} of socket {index} was called after it was removed or replaced")
            return
        if not is_ready(self.fds[index], POLL[direction]):
            self.wrong.append(f"the {direction} of socket {index} was called though it is not ready")
        self.calls[token] += 1
        match behaviour:
            case ("move", count):
                self.move(index, direction, count)
            case ("remove itself",):
                self.remove(index, direction)
            case ("remove", other, of):
                self.remove(other, of)
            case ("replace", other, of):
                # Once only: a callback replaced in each iteration is due in each and never called, rightly so.
                self.registered[index, direction] = token, ("nothing",)
                if (other, of) in self.registered:
                    self.add(other, of, ("nothing",))

    def move(self, index, direction, count):
        ours, _ = self.pairs[index]
        try:
            if direction == "reader":
                ours.recv(count)
            else:
                fill(ours)
        except OSError:
            pass  # the peer is gone

    def settle(self):
        for _ in range(2):
            self.calls = dict.fromkeys(self.calls, 0)
            for _ in range(SETTLE):
                self.loop.call_soon(self.loop.stop)
                self.loop.run_forever()
            assert self.wrong == []
        for (index, direction), (token, _) in self.registered.items():
            if is_ready(self.fds[index], POLL[direction]):
                assert self.calls[token], f"the {direction} of socket {index} is ready and was not called"

    def apply(self, operation):
        match operation:
            case ("add", index, direction, behaviour):
                self.add(index, direction, behaviour)
            case ("remove", index, direction):
                self.remove(index, direction)
            case ("peer sends", index, count):
                theirs = self.pairs[index][1]
                if theirs.fileno() >= 0 and is_ready(theirs.fileno(), select.POLLOUT):
                    theirs.send(bytes(count))
            case ("peer drains", index):
                theirs = self.pairs[index][1]
                if theirs.fileno() >= 0:
                    drain(theirs)
            case ("fill", index):
                self.move(index, "writer", 0)
            case ("drain", index):
                self.move(index, "reader", 1 << 20)
            case ("peer closes", index):
                self.pairs[index][1].close()
            case ("reopen", index, early):
                self.reopen(index, early)
            case ("settle",):
                self.settle()

    def reopen(self, index, early):
        """Close the socket and open another one with its number; its watchers are removed before or after."""
        ours, theirs = self.pairs[index]
        watched = [direction for direction in POLL if (index, direction) in self.registered]
        if early or len(watched) == 2:  # stock asyncio cannot remove both from a closed fd
            for direction in watched:
                self.remove(index, direction)
        ours.close()
        theirs.close()
        for direction in POLL:
            if (index, direction) in self.registered:
                self.remove(index, direction)
        self.pairs[index] = pair_at(self.fds[index])
        for sock in self.pairs[index]:
            self.stack.callback(sock.close)


@clause(
    "readers_writers.reader.level-triggered",
    "readers_writers.reader.quiet-when-drained",
    "readers_writers.writer.waits-for-room",
    "readers_writers.both.independent",
    "readers_writers.remove.ends-calls",
    "readers_writers.remove.another-ready-one",
    "readers_writers.reuse.remove-then-add",
)
@explored(150)
@given(operations=st.lists(operations, max_size=25))
def test_watchers_behave_like_the_model(loop, operations):
    with ExitStack() as stack:
        machine = Machine(loop, stack)
        try:
            for operation in operations:
                machine.apply(operation)
            machine.settle()
        finally:
            for index, direction in list(machine.registered):
                machine.remove(index, direction)
