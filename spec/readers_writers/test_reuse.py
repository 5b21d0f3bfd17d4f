"""An fd that is closed while it is watched, and its number that comes back as another file."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack

import pytest

from .._kit import clause, peers
from .helpers import SETTLE, drain, fill, pair, pair_at, pair_elsewhere, pipe


@clause("readers_writers.remove.closed-fd")
@pytest.mark.parametrize("direction", ["reader", "writer"])
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-an-iteration"])
def test_the_watcher_of_a_closed_fd_can_be_removed_by_number(loop, tick, direction, ran):
    calls = []
    with pair() as (ours, theirs):
        theirs.send(b"x")
        fd = ours.fileno()
        getattr(loop, f"add_{direction}")(fd, calls.append, "called")
        tick(SETTLE)
        assert calls
        ours.close()
        calls.clear()
        if ran:
            tick(SETTLE)
        getattr(loop, f"remove_{direction}")(fd)
        assert not getattr(loop, f"remove_{direction}")(fd)
        tick(SETTLE)
    assert calls == []


@clause("readers_writers.remove.closed-fd-watched-both-ways")
@pytest.mark.parametrize("when", ["closed", "reused"])
def test_both_watchers_of_a_closed_fd_can_be_removed_by_number(loop, tick, when):
    calls = []
    with pair() as (ours, _):
        fd = ours.fileno()
        loop.add_reader(fd, calls.append, "old")
        loop.add_writer(fd, calls.append, "old")
        tick(SETTLE)
        ours.close()
        new, new_theirs = pair_at(fd) if when == "reused" else pair_elsewhere(fd)
        with new, new_theirs:
            loop.remove_reader(fd)
            loop.remove_writer(fd)
            calls.clear()
            loop.add_reader(new.fileno(), lambda: calls.append(new.recv(100)))
            new_theirs.send(b"x")
            tick(SETTLE)
            loop.remove_reader(new.fileno())
    assert calls == [b"x"]


@clause("readers_writers.remove.closed-object")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_the_watcher_of_a_closed_socket_can_be_removed_by_the_socket(loop, tick, direction):
    with pair() as (ours, _):
        getattr(loop, f"add_{direction}")(ours, lambda: None)
        tick(SETTLE)
        ours.close()
        getattr(loop, f"remove_{direction}")(ours)
        tick(SETTLE)


@clause("readers_writers.reuse.old-watcher-not-reached")
@pytest.mark.parametrize("how", ["closed", "replaced-by-dup2", "closed-with-a-duplicate-alive"])
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-an-iteration"])
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_events_of_a_new_file_do_not_reach_the_watcher_of_the_closed_one(loop, tick, how, ran, direction):
    calls = []
    with ExitStack() as stack:
        ours, _ = stack.enter_context(pair())
        fd = ours.fileno()
        fill(ours)
        getattr(loop, f"add_{direction}")(fd, calls.append, "old")
        tick(SETTLE)
        assert calls == []
        if how == "closed-with-a-duplicate-alive":
            stack.enter_context(ours.dup())
        if how == "replaced-by-dup2":
            new, new_theirs = stack.enter_context(pair())
            os.dup2(new.fileno(), fd, inheritable=False)
        else:
            ours.close()
            if ran:
                tick(SETTLE)
            new, new_theirs = pair_at(fd)
            stack.enter_context(new)
            stack.enter_context(new_theirs)
        if how == "replaced-by-dup2" and ran:
            tick(SETTLE)
        new_theirs.send(b"x")
        tick(SETTLE)
        new_theirs.close()
        tick(SETTLE)
        assert calls == []
        getattr(loop, f"remove_{direction}")(fd)
        tick(SETTLE)
    assert calls == []


@clause("readers_writers.reuse.remove-then-add")
@pytest.mark.parametrize("when", ["removed-before-close", "removed-after-close", "removed-after-reuse"])
@pytest.mark.parametrize("old", ["idle", "unread-data", "hung-up"])
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_new_watcher_on_a_reused_number_works(loop, tick, when, old, direction):
    calls = []
    with pair() as (ours, theirs):
        fd = ours.fileno()
        getattr(loop, f"add_{direction}")(fd, calls.append, "old")
        if old == "unread-data":
            theirs.send(b"x")
        elif old == "hung-up":
            theirs.close()
        tick(SETTLE)

        def remove():
            getattr(loop, f"remove_{direction}")(fd)

        if when == "removed-before-close":
            remove()
        ours.close()
        if when == "removed-after-close":
            remove()
        new, new_theirs = pair_at(fd)
        with new, new_theirs:
            if when == "removed-after-reuse":
                remove()
            calls.clear()
            loop.add_reader(new.fileno(), lambda: calls.append(new.recv(100)))
            tick(SETTLE)
            assert calls == []
            new_theirs.send(b"one")
            tick(SETTLE)
            new_theirs.send(b"two")
            tick(SETTLE)
            assert calls == [b"one", b"two"]
            loop.add_writer(new.fileno(), calls.append, "new writer")
            tick(SETTLE)
            assert set(calls[2:]) == {"new writer"}
            loop.remove_reader(fd)
            loop.remove_writer(fd)


@clause("readers_writers.reuse.add-without-remove")
@pytest.mark.parametrize("direction", ["reader", "writer"])
@pytest.mark.parametrize("ran", [False, True], ids=["at-once", "after-an-iteration"])
def test_a_new_watcher_works_though_the_old_one_was_never_removed(loop, tick, direction, ran):
    calls = []
    with pair() as (ours, _):
        fd = ours.fileno()
        fill(ours)
        getattr(loop, f"add_{direction}")(fd, calls.append, "old")
        tick(SETTLE)
        ours.close()
        if ran:
            tick(SETTLE)
        new, new_theirs = pair_at(fd)
        with new, new_theirs:
            fill(new)
            getattr(loop, f"add_{direction}")(fd, calls.append, "new")
            tick(SETTLE)
            assert calls == []
            if direction == "reader":
                new_theirs.send(b"x")
            else:
                drain(new_theirs)
            tick(SETTLE)
            assert set(calls) == {"new"}
            getattr(loop, f"remove_{direction}")(fd)


@clause("readers_writers.reuse.add-without-remove")
def test_a_new_watcher_works_in_the_direction_that_the_closed_fd_was_not_watched(loop, tick):
    calls = []
    with pair() as (ours, _):
        fd = ours.fileno()
        loop.add_reader(fd, calls.append, "old reader")
        tick(SETTLE)
        ours.close()
        new, new_theirs = pair_at(fd)
        with new, new_theirs:
            loop.add_writer(fd, calls.append, "new writer")
            tick(SETTLE)
            assert set(calls) == {"new writer"}
            loop.remove_writer(fd)
            loop.remove_reader(fd)


@clause("readers_writers.reuse.remove-then-add")
def test_a_number_can_be_reused_by_another_kind_of_file(loop, tick):
    calls = []
    with pair() as (ours, _), pipe() as (reading, writing):
        fd = ours.fileno()
        loop.add_reader(fd, calls.append, "socket")
        tick(SETTLE)
        loop.remove_reader(fd)
        ours.close()
        os.dup2(reading, fd)
        try:
            loop.add_reader(fd, lambda: calls.append(os.read(fd, 100)))
            tick(SETTLE)
            os.write(writing, b"pipe")
            tick(SETTLE)
            loop.remove_reader(fd)
        finally:
            os.close(fd)
    assert calls == [b"pipe"]


@clause("readers_writers.reuse.remove-then-add")
def test_a_number_that_is_reused_again_and_again_always_reaches_the_watcher_of_the_day(loop, tick):
    calls = []
    with pair() as (ours, _):
        fd = ours.fileno()
    for day in range(50):
        ours, theirs = pair_at(fd)
        with ours, theirs:
            loop.add_reader(fd, lambda day=day, ours=ours: calls.append((day, ours.recv(100))))
            theirs.send(b"%d" % day)
            tick(SETTLE)
            assert calls == [(day, b"%d" % day)]
            calls.clear()
            if day % 2:
                ours.close()
                loop.remove_reader(fd)
            else:
                loop.remove_reader(fd)


@clause("readers_writers.reuse.after-transport")
def test_the_number_of_a_closed_transport_can_be_watched(loop, run, tick):
    async def open_and_close():
        ours, theirs = peers.pair()
        with theirs:
            lost = loop.create_future()

            class Protocol(asyncio.Protocol):
                def connection_lost(self, exc):
                    lost.set_result(exc)

            fd = ours.fileno()
            transport, _ = await loop.create_connection(Protocol, sock=ours)
            transport.close()
            await lost
            # The socket is closed right after connection_lost() returns.
            await asyncio.sleep(0)
            return fd

    fd = run(open_and_close())
    calls = []
    new, new_theirs = pair_at(fd)
    with new, new_theirs:
        loop.add_reader(fd, lambda: calls.append(new.recv(100)))
        tick(SETTLE)
        new_theirs.send(b"x")
        tick(SETTLE)
        loop.remove_reader(fd)
    assert calls == [b"x"]
