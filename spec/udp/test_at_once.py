"""When datagrams leave: what is sent while nothing is queued is the kernel's by the time sendto() returns."""

from __future__ import annotations

import contextlib
import errno
import os
import time

import pytest

from .._kit import clause, programs
from .._kit.contracts.rules.at_once import forks
from .._kit.contracts.stream import aside
from .recording import endpoint, far_end, filling_pair, receive


@contextlib.asynccontextmanager
async def sender(loop, kind):
    """An endpoint's protocol, a function that sends a datagram to its peer, and the peer, a blocking socket."""
    if kind == "unix":
        with filling_pair() as (ours, theirs):
            async with endpoint(loop, sock=ours.dup()) as protocol:
                yield protocol, protocol.transport.sendto, theirs
        return
    with far_end() as far:
        address = far.getsockname()
        arguments = {"remote_addr": address} if kind == "connected" else {}
        async with endpoint(loop, **arguments) as protocol:
            to = None if kind == "connected" else address
            yield protocol, lambda data: protocol.transport.sendto(data, to), far


KINDS = pytest.mark.parametrize("kind", ["unconnected", "connected", "unix"])


@clause("udp.send.at-once")
@KINDS
def test_each_datagram_of_a_step_is_with_the_receiver_before_the_step_ends(loop, run, kind):
    async def main():
        async with sender(loop, kind) as (_, send, peer):
            send(b"one")
            send(b"two")
            first = receive(peer, 2)  # blocks: the loop does not run meanwhile
            send(b"three")
            return first + receive(peer, 1)

    assert run(main()) == [b"one", b"two", b"three"]


@clause("udp.send.at-once")
def test_what_is_sent_while_the_loop_does_not_run_is_with_the_receiver(loop, run):
    with far_end() as far:
        opened = endpoint(loop)
        protocol = run(opened.__aenter__())
        protocol.transport.sendto(b"one", far.getsockname())
        protocol.transport.sendto(b"two", far.getsockname())
        assert receive(far, 2) == [b"one", b"two"]
        run(opened.__aexit__(None, None, None))


@clause("udp.send.from-a-thread")
@KINDS
def test_what_another_thread_sends_does_not_wait_for_an_idle_loop(loop, run, kind):
    async def main():
        async with sender(loop, kind) as (_, send, peer):

            def work():
                time.sleep(0.05)  # clause-delay: the loop is to be idle by then
                send(b"one")
                send(b"two")
                return receive(peer, 2)

            return await aside(work)

    assert run(main()) == [b"one", b"two"]


@clause("udp.send.once-across-a-fork")
@forks
@KINDS
@pytest.mark.parametrize("end", ["exits", "closes", "aborts", "leaves the loop"])
def test_what_was_sent_before_a_fork_is_sent_once(loop, run, kind, end):
    parent = os.getpid()

    async def main():
        async with sender(loop, kind) as (protocol, send, peer):
            send(b"one")
            send(b"two")
            if (pid := os.fork()) == 0:
                if end == "closes":
                    protocol.transport.close()
                elif end == "aborts":
                    protocol.transport.abort()
                elif end == "leaves the loop":
                    loop.call_soon(os._exit, 0)
                    return None
                os._exit(0)
            programs.reap(pid)
            send(b"end")
            return await aside(receive, peer, 3)

    try:
        assert run(main()) == [b"one", b"two", b"end"]
    finally:
        if os.getpid() != parent:
            os._exit(0)


@clause("udp.send.before-the-process-ends")
@forks
@KINDS
@pytest.mark.parametrize("end", ["os._exit", "os.execv"])
def test_a_process_that_ends_at_once_has_sent_what_it_sent(loop, run, kind, end):
    async def main():
        async with sender(loop, kind) as (_, send, peer):
            if (pid := os.fork()) == 0:
                send(b"one")
                send(b"two")
                if end == "os.execv":
                    os.execv("/bin/sh", ["sh", "-c", "exit 0"])
                os._exit(0)
            programs.reap(pid)
            return receive(peer, 2)

    assert run(main()) == [b"one", b"two"]


@clause("udp.errors.inside-sendto")
@KINDS
def test_error_received_is_called_before_sendto_returns(loop, run, kind):
    async def main():
        async with sender(loop, kind) as (protocol, send, peer):
            send(b"one")
            told = [len(protocol.failures)]
            for data in (bytes(1 << 20), b"two", bytes(1 << 20)):
                send(data)
                told.append(len(protocol.failures))
            return told, [failure.errno for failure in protocol.failures], receive(peer, 2)

    assert run(main()) == ([0, 1, 1, 2], [errno.EMSGSIZE] * 2, [b"one", b"two"])
