"""What is refused, with the exception that stock asyncio raises, at the call."""

from __future__ import annotations

import asyncio
import errno
import sys

import pytest

from .._kit import clause, peers
from .helpers import SETTLE, call, pair

METHODS = ["add_reader", "add_writer", "remove_reader", "remove_writer"]


@clause("readers_writers.kinds.regular-file-refused")
@pytest.mark.skipif(sys.platform != "linux", reason="epoll refuses regular files, kqueue does not")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_regular_file_is_refused_at_once_and_leaves_nothing_behind(loop, tick, tmp_path, direction):
    calls = []
    with (tmp_path / "file").open("w+b") as file, pair() as (ours, theirs):
        for _ in range(2):
            with pytest.raises(PermissionError):
                call(loop, f"add_{direction}", file.fileno(), calls.append)
            assert not call(loop, f"remove_{direction}", file.fileno())
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), calls.append, "called")
        tick(SETTLE)
        loop.remove_reader(ours.fileno())
    assert set(calls) == {"called"}


class BadFileno:
    def fileno(self):
        return "three"


@clause("readers_writers.errors.invalid-fd")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fd", [-1, "text", None, 1.5, object(), BadFileno()], ids=lambda fd: type(fd).__name__)
def test_what_is_no_fd_is_a_value_error(loop, method, fd):
    with pytest.raises(ValueError):
        call(loop, method, fd)


@clause("readers_writers.errors.invalid-fd")
@pytest.mark.parametrize("method", METHODS)
def test_a_closed_socket_that_was_never_watched_is_a_value_error(loop, method):
    with pair() as (ours, _):
        ours.close()
        with pytest.raises(ValueError):
            call(loop, method, ours)


@clause("readers_writers.errors.fd-not-open")
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_number_that_is_not_open_is_refused(loop, tick, direction):
    with pair() as (ours, _):
        fd = ours.fileno()
    with pytest.raises(OSError) as caught:
        call(loop, f"add_{direction}", fd)
    assert caught.value.errno == errno.EBADF
    assert not call(loop, f"remove_{direction}", fd)
    tick(SETTLE)


@clause("readers_writers.errors.fd-of-a-transport")
@pytest.mark.parametrize("method", METHODS)
def test_the_fd_of_a_live_transport_is_refused(loop, run, method):
    async def main():
        ours, theirs = peers.pair()
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            sock = transport.get_extra_info("socket")
            for fd in (sock.fileno(), sock):
                with pytest.raises(RuntimeError, match="is used by transport"):
                    call(loop, method, fd)
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    run(main())


@clause("readers_writers.errors.closed-loop")
def test_a_closed_loop_adds_nothing_and_has_nothing_to_remove(loop):
    with pair() as (ours, _):
        loop.add_reader(ours.fileno(), lambda: None)
        loop.close()
        for method in ("add_reader", "add_writer"):
            with pytest.raises(RuntimeError, match="closed"):
                call(loop, method, ours.fileno())
        assert loop.remove_reader(ours.fileno()) is not True
        assert loop.remove_writer(ours.fileno()) is not True
