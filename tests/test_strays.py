"""A descriptor that is closed here, while a forked child keeps its open file, does not wake the loop for ever.

Its registration stays with the kernel (epoll(7), question 6), and cannot be taken back, as its number is gone.
"""

from __future__ import annotations

import textwrap

import pytest

from tests import support

pytestmark = pytest.mark.timeout(60)

PROGRAM = textwrap.dedent(
    """
    import asyncio, os, socket, sys, threading, time
    from tests import support

    how = sys.argv[1]
    SENT = 200

    def send(peer, loop, sent):
        for _ in range(SENT):
            time.sleep(0.002)  # clause-delay: each is to be an event of its own
            peer.send(b"x")
        loop.call_soon_threadsafe(sent.set_result, None)

    async def main():
        loop = asyncio.get_running_loop()
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        if how == "sock_recv":
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            peer.send(b"x")
            assert await receiving == b"x"
        else:
            seen = loop.create_future()
            loop.add_reader(ours, lambda: (ours.recv(10), seen.done() or seen.set_result(None)))
            peer.send(b"x")
            await seen

        released, hold = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(hold)
            os.read(released, 1)
            os._exit(0)
        os.close(released)
        number = ours.fileno()
        ours.close()
        if how == "add_reader":
            loop.remove_reader(number)
        others = []
        if how == "reused":
            # Other files have the numbers now, and wait for what never comes.
            others = [socket.socketpair() for _ in range(20)]
            for other, _ in others:
                loop.add_reader(other, print, "never")
        sent = loop.create_future()
        threading.Thread(target=send, args=(peer, loop, sent)).start()
        parks = loop.stats()["parks"]
        await sent
        print("parks:", loop.stats()["parks"] - parks)
        # What lives is still watched.
        for other, its_peer in others:
            seen = loop.create_future()
            loop.add_reader(other, lambda: seen.done() or seen.set_result(None))
            its_peer.send(b"x")
            await seen
            loop.remove_reader(other)
        os.close(hold)
        os.waitpid(child, 0)

    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main())
    """
)


@pytest.mark.skipif(not support.OURS, reason="counts what only our loop counts; stock asyncio's spins after add_reader")
@pytest.mark.parametrize("how", ["sock_recv", "add_reader", "reused"])
def test_a_closed_descriptor_that_a_child_keeps_open_does_not_wake_the_loop_for_ever(how: str) -> None:
    said = support.check(PROGRAM, how, PYTHONWARNINGS="ignore::DeprecationWarning,ignore::ResourceWarning")
    assert int(said.partition("parks: ")[2].split()[0]) <= 20
