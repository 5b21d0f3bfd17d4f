"""Rules about when bytes leave: what is written while nothing is queued is the kernel's by the time write() returns.

So whoever has the same file in another way (a raw shutdown, a forked child, another descriptor) finds them in their
place, and nothing that keeps the loop from running, or ends it, keeps them back.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest

from ... import peers, programs
from ..recording import Recorder
from ..stream import Peer, aside, drain, end_child, in_callback, rule


def forks(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a test whose process forks."""
    # Since CPython 3.12, of a process with threads: some peers have some.
    quietly = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    return quietly(pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")(function))


def exactly(peer: Peer, size: int) -> bytes:
    """Receive `size` bytes, or what comes up to the end."""
    got = b""
    while len(got) < size and (piece := peer.recv(size - len(got))):
        got += piece
    return got


@rule("write.at-once", needs="write")
def each_write_of_a_step_is_with_the_peer_before_the_step_ends(stream, loop, run):
    async def main():
        transport, peer = await stream(Recorder(loop))
        transport.write(b"one ")
        transport.write(b"two ")
        first = exactly(peer, 8)  # blocks: the loop does not run meanwhile
        transport.writelines([b"three ", b"four "])
        transport.write(b"five")
        return first, exactly(peer, 15)

    assert run(main()) == (b"one two ", b"three four five")


@rule("write.at-once", needs="write")
def what_is_written_while_the_loop_does_not_run_is_with_the_peer(stream, loop, run):
    transport, peer = run(stream(Recorder(loop)))
    transport.write(b"one ")
    transport.write(b"two")
    assert exactly(peer, 7) == b"one two"


@rule("write.from-a-thread", needs="write")
def what_another_thread_writes_does_not_wait_for_an_idle_loop(stream, loop, run):
    async def main():
        transport, peer = await stream(Recorder(loop))

        def work():
            time.sleep(0.05)  # clause-delay: the loop is to be idle by then
            transport.write(b"one ")
            transport.write(b"two")
            return exactly(peer, 7)

        return await aside(work)

    assert run(main()) == b"one two"


@rule("write.before-a-raw-shutdown", needs="write half_close")
def the_sockets_own_shutdown_comes_behind_what_was_written(stream, loop, run):
    async def main():
        protocol = Recorder(loop)
        transport, peer = await stream(protocol)
        sock = transport.get_extra_info("socket")
        transport.write(b"one ")
        transport.write(b"two")
        sock.shutdown(socket.SHUT_WR)
        got = await aside(drain, peer)
        transport.close()
        return got, await protocol.lost

    assert run(main()) == (b"one two", None)


@rule("write.among-others", needs="write")
def what_others_write_by_the_descriptor_keeps_its_place(stream, loop, run):
    async def main():
        transport, peer = await stream(Recorder(loop))
        fd = (transport.get_extra_info("pipe") or transport.get_extra_info("socket")).fileno()
        for number in range(3):
            transport.write(b"transport %d " % number)
            os.write(fd, b"descriptor %d " % number)
        return exactly(peer, 75)

    assert run(main()) == b"".join(b"transport %d descriptor %d " % (number, number) for number in range(3))


@rule("write.once-across-a-fork", needs="write")
@forks
@pytest.mark.parametrize("end", ["exits", "closes", "aborts", "leaves the loop"])
def what_was_written_before_a_fork_is_sent_once(stream, loop, run, end):
    parent = os.getpid()

    async def main():
        transport, peer = await stream(Recorder(loop))

        def fork():
            transport.write(b"one ")
            transport.write(b"two")
            if (pid := os.fork()) == 0:
                end_child(transport, end)
            programs.reap(pid)
            transport.close()

        await in_callback(fork)
        return await aside(drain, peer)

    try:
        assert run(main()) == b"one two"
    finally:
        if os.getpid() != parent:
            os._exit(0)


@rule("write.before-the-process-ends", needs="write")
@forks
@pytest.mark.parametrize("end", ["os._exit", "os.execv"])
def a_process_that_ends_at_once_has_sent_what_it_wrote(stream, loop, run, end):
    async def main():
        transport, peer = await stream(Recorder(loop))
        if (pid := os.fork()) == 0:
            transport.write(b"one ")
            transport.write(b"two")
            if end == "os.execv":
                os.execv("/bin/sh", ["sh", "-c", "exit 0"])
            os._exit(0)
        programs.reap(pid)
        return exactly(peer, 7)

    assert run(main()) == b"one two"


@rule("write.signal-handler-raises", needs="write")
def what_a_signal_handler_wrote_before_it_raised_is_sent(stream, loop, run):
    transport, peer = run(stream(Recorder(loop)))

    def handle(*_):
        transport.write(b"one ")
        transport.write(b"two")
        raise KeyboardInterrupt

    def interrupt():
        time.sleep(0.05)  # clause-delay: the loop is to be idle by then
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with peers.thread(interrupt), pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert exactly(peer, 7) == b"one two"
