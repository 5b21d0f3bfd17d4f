"""Adding, replacing and removing: which fds, what is returned, what is refused."""

from __future__ import annotations

import gc
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import weakref
from contextlib import ExitStack

import pytest

from .._kit import clause, peers
from .helpers import SETTLE, call, fill, pair, pipe

# ---- kinds of fds: each opens one and gives (fd to watch, what makes it readable)


def open_pipe(stack):
    reading, writing = stack.enter_context(pipe())
    return reading, lambda: os.write(writing, b"x")


def open_fifo(stack):
    path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "fifo")
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    stack.callback(os.close, fd)
    return fd, lambda: os.write(fd, b"x")


def open_terminal(stack):
    master, slave = os.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    return slave, lambda: os.write(master, b"line\n")


def open_terminal_master(stack):
    master, slave = os.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    return master, lambda: os.write(slave, b"line\n")


def open_event(stack):
    if not hasattr(os, "eventfd"):
        pytest.skip("no eventfd here")
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, fd)
    return fd, lambda: os.eventfd_write(fd, 1)


def open_process(stack):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd here")
    child = stack.enter_context(subprocess.Popen([sys.executable, "-Sc", "input()"], stdin=subprocess.PIPE))
    stack.callback(child.kill)
    fd = os.pidfd_open(child.pid)
    stack.callback(os.close, fd)
    return fd, lambda: child.communicate(b"\n")


def open_epoll(stack):
    if not hasattr(select, "epoll"):
        pytest.skip("no epoll here")
    epoll = stack.enter_context(select.epoll())
    ours, theirs = stack.enter_context(pair())
    epoll.register(ours, select.EPOLLIN)
    return epoll.fileno(), lambda: theirs.send(b"x")


def open_datagram(stack):
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock.fileno(), lambda: sock.sendto(b"x", sock.getsockname())


def open_listener(stack):
    listener = stack.enter_context(peers.listener())
    return listener.fileno(), lambda: stack.enter_context(socket.create_connection(listener.getsockname(), 15))


def open_unix_datagram(stack):
    ours, theirs = stack.enter_context(pair(socket.SOCK_DGRAM))
    return ours.fileno(), lambda: theirs.send(b"")


KINDS = [
    open_pipe,
    open_fifo,
    open_terminal,
    open_terminal_master,
    open_event,
    open_process,
    open_epoll,
    open_datagram,
    open_listener,
    open_unix_datagram,
]


@clause("readers_writers.kinds.pollable-fds")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.removeprefix("open_"))
def test_a_pollable_fd_of_any_kind_can_be_watched(loop, tick, run, kind):
    async def main():
        called = loop.create_future()
        loop.add_reader(fd, lambda: called.done() or called.set_result(None))
        make_ready()
        await called
        loop.remove_reader(fd)

    with ExitStack() as stack:
        fd, make_ready = kind(stack)
        calls = []
        loop.add_reader(fd, calls.append, "called")
        tick(SETTLE)
        assert calls == []
        loop.remove_reader(fd)
        run(main())


@clause("readers_writers.kinds.pollable-fds")
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_writable_fd_that_is_no_socket_can_be_watched(loop, run, kind):
    async def main(fd):
        called = loop.create_future()
        loop.add_writer(fd, lambda: called.done() or called.set_result(None))
        await called
        loop.remove_writer(fd)

    if kind == "pipe":
        with pipe() as (_, writing):
            run(main(writing))
    else:
        master, slave = os.openpty()
        try:
            run(main(slave))
        finally:
            os.close(master)
            os.close(slave)


@clause("readers_writers.kinds.fd-number-or-object")
def test_a_number_and_an_object_name_the_same_registration(loop, tick):
    class HasFileno:
        def __init__(self, fd):
            self.fd = fd

        def fileno(self):
            return self.fd

    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        for added, removed in [
            (ours, ours.fileno()),
            (ours.fileno(), ours),
            (HasFileno(ours.fileno()), ours),
            (ours, HasFileno(ours.fileno())),
        ]:
            loop.add_reader(added, calls.append, "called")
            tick(SETTLE)
            assert calls
            loop.remove_reader(removed)
            calls.clear()
            tick(SETTLE)
            assert calls == []
            loop.add_writer(added, calls.append, "called")
            tick(SETTLE)
            assert calls
            loop.remove_writer(removed)
            calls.clear()
            tick(SETTLE)
            assert calls == []


@clause("readers_writers.kinds.fd-number-or-object")
def test_a_file_object_of_a_pipe_can_be_watched(loop, tick):
    calls = []
    with pipe() as (reading, writing), os.fdopen(os.dup(reading), "rb", buffering=0) as file:
        loop.add_reader(file, calls.append, "called")
        os.write(writing, b"x")
        tick(SETTLE)
        loop.remove_reader(file.fileno())
        assert calls
        calls.clear()
        tick(SETTLE)
    assert calls == []


@clause("readers_writers.registration.passes-arguments")
@pytest.mark.parametrize("args", [(), (1,), (None, "two", [3])])
def test_the_callback_gets_exactly_the_arguments_given(loop, tick, args):
    calls = []

    def callback(*got, **kwargs):
        calls.append((got, kwargs))

    with pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), callback, *args)
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
        assert calls
        loop.add_writer(ours.fileno(), callback, *args)
        tick(SETTLE)
        loop.remove_writer(ours.fileno())
    assert all(got == (args, {}) for got in calls)
    assert all(a is b for got, _ in calls for a, b in zip(got, args, strict=True))


@clause("readers_writers.registration.replaces")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_adding_again_replaces_the_callback(loop, tick, direction):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        call(loop, f"add_{direction}", ours.fileno(), lambda: calls.append("old"))
        tick(SETTLE)
        assert set(calls) == {"old"}
        calls.clear()
        call(loop, f"add_{direction}", ours.fileno(), lambda: calls.append("new"))
        tick(SETTLE)
        assert set(calls) == {"new"}
        call(loop, f"remove_{direction}", ours.fileno())
        calls.clear()
        tick(SETTLE)
        assert calls == []


@clause("readers_writers.registration.replaces")
def test_a_callback_replaced_while_it_was_due_is_not_called(loop, tick):
    calls = []
    with pair() as (one, peer_of_one), pair() as (two, peer_of_two):

        def first(mine, other):
            calls.append(mine)
            loop.remove_reader(mine.fileno())
            loop.add_reader(other.fileno(), calls.append, f"new {other.fileno()}")

        peer_of_one.send(b"x")
        peer_of_two.send(b"x")
        loop.add_reader(one.fileno(), first, one, two)
        loop.add_reader(two.fileno(), first, two, one)
        tick(SETTLE)
        winner = calls[0]
        other = two if winner is one else one
        assert set(calls[1:]) == {f"new {other.fileno()}"}
        loop.remove_reader(other.fileno())


@clause("readers_writers.registration.survives-between-runs")
def test_a_watcher_stays_from_one_run_to_the_next(loop, run):
    calls = []

    async def nothing():
        pass

    def reader():
        calls.append(ours.recv(100))
        loop.stop()

    with pair() as (ours, theirs):
        loop.add_reader(ours.fileno(), reader)
        for text in (b"one", b"two", b"three"):
            run(nothing())
            theirs.send(text)
            loop.run_forever()
        loop.remove_reader(ours.fileno())
    assert calls == [b"one", b"two", b"three"]


@clause("readers_writers.registration.many-fds")
def test_each_of_hundreds_of_fds_reaches_its_own_callback(loop, tick):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(300, (soft - 64) // 2)
    got = {}
    with ExitStack() as stack:
        pairs = [stack.enter_context(pair()) for _ in range(count)]

        def reader(index):
            got.setdefault(index, []).append(pairs[index][0].recv(100))

        for index, (ours, _) in enumerate(pairs):
            loop.add_reader(ours.fileno(), reader, index)
        tick(SETTLE)
        assert got == {}
        for chosen in (range(count), range(0, count, 7), range(count - 1, count)):
            for index in chosen:
                pairs[index][1].send(b"for %d" % index)
            # A poll may give out its events in batches, so give it as many looks as there are fds.
            tick(SETTLE + count)
            assert got == {index: [b"for %d" % index] for index in chosen}
            got.clear()
        for ours, _ in pairs:
            loop.remove_reader(ours.fileno())


@clause("readers_writers.registration.both-ends-in-one-loop")
def test_both_ends_of_a_connection_play_ping_pong_in_one_loop(loop):
    rounds = []

    def reader(sock):
        data = sock.recv(100)
        rounds.append(data)
        if len(rounds) == 200:
            loop.stop()
        else:
            sock.send(b"%d" % len(rounds))

    with pair() as (one, two):
        loop.add_reader(one.fileno(), reader, one)
        loop.add_reader(two.fileno(), reader, two)
        one.send(b"0")
        loop.run_forever()
        loop.remove_reader(one.fileno())
        loop.remove_reader(two.fileno())
    assert rounds == [b"%d" % n for n in range(200)]


@clause("readers_writers.registration.duplicated-fds")
def test_an_fd_and_its_duplicate_are_watched_apart(loop, tick):
    calls = []
    with pair() as (ours, theirs), ours.dup() as twin:
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), calls.append, "first")
        loop.add_reader(twin.fileno(), calls.append, "twin")
        tick(SETTLE)
        assert set(calls) == {"first", "twin"}
        loop.remove_reader(ours.fileno())
        calls.clear()
        tick(SETTLE)
        assert set(calls) == {"twin"}
        ours.close()
        calls.clear()
        tick(SETTLE)
        assert set(calls) == {"twin"}
        loop.remove_reader(twin.fileno())


@clause("readers_writers.registration.next-loop")
@pytest.mark.parametrize("how", ["removed", "closed"])
def test_another_loop_can_watch_an_fd_after_the_first_one_let_go(new_loop, how):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        for number in range(3):
            loop = new_loop()
            loop.add_reader(ours.fileno(), lambda number=number, loop=loop: (calls.append(number), loop.stop()))
            loop.run_forever()
            if how == "removed":
                loop.remove_reader(ours.fileno())
            else:
                loop.close()
    assert list(dict.fromkeys(calls)) == [0, 1, 2]


@clause("readers_writers.remove.return-value")
def test_removal_says_whether_that_direction_was_watched(loop):
    with pair() as (ours, _):
        assert loop.remove_reader(ours.fileno()) is False
        assert loop.remove_writer(ours.fileno()) is False
        loop.add_reader(ours.fileno(), lambda: None)
        assert loop.remove_writer(ours.fileno()) is False
        assert loop.remove_reader(ours.fileno()) is True
        assert loop.remove_reader(ours.fileno()) is False
        loop.add_writer(ours.fileno(), lambda: None)
        assert loop.remove_reader(ours.fileno()) is False
        assert loop.remove_writer(ours.fileno()) is True
        assert loop.remove_writer(ours.fileno()) is False


@clause("readers_writers.remove.ends-calls")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_removed_callback_is_not_called_any_more(loop, tick, direction):
    calls = []
    with pair() as (ours, theirs):
        if direction == "writer":
            fill(ours)
        call(loop, f"add_{direction}", ours.fileno(), lambda: calls.append("called"))
        tick(SETTLE)
        call(loop, f"remove_{direction}", ours.fileno())
        theirs.send(b"x")
        tick(SETTLE)
        theirs.close()
        tick(SETTLE)
    assert calls == []


@clause("readers_writers.remove.by-itself")
def test_a_reader_that_removes_itself_is_called_once_though_data_remains(loop, tick):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"data")
        loop.add_reader(ours.fileno(), lambda: (calls.append("reader"), loop.remove_reader(ours.fileno())))
        tick(SETTLE)
        loop.add_writer(ours.fileno(), lambda: (calls.append("writer"), loop.remove_writer(ours.fileno())))
        tick(SETTLE)
    assert calls == ["reader", "writer"]


@clause("readers_writers.remove.by-itself")
def test_a_reader_that_removes_and_adds_itself_goes_on(loop, tick):
    calls = []

    def reader():
        calls.append(ours.recv(1))
        loop.remove_reader(ours.fileno())
        loop.add_reader(ours.fileno(), reader)

    with pair() as (ours, theirs):
        theirs.send(b"abc")
        loop.add_reader(ours.fileno(), reader)
        tick(3 + SETTLE)
        assert calls == [b"a", b"b", b"c"]
        theirs.send(b"d")
        tick(SETTLE)
        assert calls[3:] == [b"d"]
        loop.remove_reader(ours.fileno())


@clause("readers_writers.remove.another-ready-one")
def test_of_two_ready_readers_that_remove_each_other_one_is_called(loop, tick):
    calls = []
    with pair() as (one, peer_of_one), pair() as (two, peer_of_two):

        def reader(mine, other):
            calls.append(mine)
            loop.remove_reader(mine.fileno())
            loop.remove_reader(other.fileno())

        loop.add_reader(one.fileno(), reader, one, two)
        loop.add_reader(two.fileno(), reader, two, one)
        tick(SETTLE)
        peer_of_one.send(b"x")
        peer_of_two.send(b"x")
        tick(SETTLE)
    assert len(calls) == 1


@clause("readers_writers.remove.another-ready-one")
def test_of_the_ready_reader_and_writer_of_one_fd_that_remove_each_other_one_is_called(loop, tick):
    calls = []
    with pair() as (ours, theirs):

        def callback(name):
            calls.append(name)
            loop.remove_reader(ours.fileno())
            loop.remove_writer(ours.fileno())

        fill(ours)
        loop.add_reader(ours.fileno(), callback, "reader")
        loop.add_writer(ours.fileno(), callback, "writer")
        tick(SETTLE)
        theirs.close()
        tick(SETTLE)
    assert len(calls) == 1


@clause("readers_writers.remove.releases-callback")
@pytest.mark.parametrize("how", ["removed", "replaced", "closed"])
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_callback_that_is_no_longer_watched_is_let_go_of(loop, tick, how, direction):
    class Callback:
        def __call__(self, argument):
            pass

    class Argument:
        pass

    callback, argument = Callback(), Argument()
    gone = [weakref.ref(callback), weakref.ref(argument)]
    with pair() as (ours, theirs):
        theirs.send(b"x")
        getattr(loop, f"add_{direction}")(ours.fileno(), callback, argument)
        del callback, argument
        tick(SETTLE)
        gc.collect()
        assert all(ref() is not None for ref in gone)
        if how == "removed":
            call(loop, f"remove_{direction}", ours.fileno())
        elif how == "replaced":
            call(loop, f"add_{direction}", ours.fileno())
        else:
            loop.close()
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
        call(loop, f"remove_{direction}", ours.fileno())


@clause("readers_writers.close.leaves-fds-open")
def test_closing_the_loop_leaves_the_watched_fds_open(loop, tick):
    with pair() as (ours, theirs), pipe() as (reading, writing):
        loop.add_reader(ours.fileno(), lambda: None)
        loop.add_writer(ours.fileno(), lambda: None)
        loop.add_reader(reading, lambda: None)
        tick(SETTLE)
        loop.close()
        gc.collect()
        theirs.send(b"still open")
        assert ours.recv(100) == b"still open"
        os.write(writing, b"still open")
        assert os.read(reading, 100) == b"still open"


@clause("readers_writers.registration.blocking-mode-kept")
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_watching_leaves_the_mode_of_a_descriptor_as_it_is(loop, tick, direction, blocking):
    with pipe() as ends:
        fd = ends[direction == "writer"]
        os.set_blocking(fd, blocking)
        modes = []
        getattr(loop, f"add_{direction}")(fd, lambda: None)
        modes.append(os.get_blocking(fd))
        tick()
        modes.append(os.get_blocking(fd))
        getattr(loop, f"remove_{direction}")(fd)
        tick()
        modes.append(os.get_blocking(fd))
    assert modes == [blocking] * 3


@clause("readers_writers.remove.leaves-fd-alone")
def test_a_descriptor_that_is_no_longer_watched_stays_open_and_unread(loop, tick):
    """A database driver watches its connection for each statement, and has it idle in between."""
    with pair() as (ours, theirs):
        fd = ours.fileno()
        for n in range(3):
            loop.add_reader(fd, lambda: None)
            loop.add_writer(fd, lambda: None)
            tick(SETTLE)
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            theirs.send(b"%d" % n)
            with pair() as (other, another):  # what comes and goes meanwhile has its numbers beside it
                loop.add_reader(other.fileno(), lambda: None)
                another.send(b"x")
                tick(SETTLE)
                loop.remove_reader(other.fileno())
            tick(SETTLE)
            assert ours.recv(100) == b"%d" % n
            ours.send(b"answer")
            assert theirs.recv(100) == b"answer"
