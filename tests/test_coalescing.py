"""`loop.coalesce_writes`: what is written in a turn leaves when the turn ends, by one send per transport."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import select
import signal
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

import tokioloop
from spec._kit import peers, programs
from spec._kit.contracts.recording import Recorder
from spec._kit.contracts.rules.at_once import exactly
from spec._kit.contracts.stream import aside, drain, end_child, in_callback, turns
from spec.pipes import makers as pipes
from spec.tcp import makers as tcp
from spec.tls import makers as tls
from spec.udp.recording import Datagrams, endpoint, far_end, receive
from spec.unix import makers as unix
from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="coalescing is tokioloop's"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

T = TypeVar("T")
MAKERS = {"tcp": tcp.Connected(), "unix": unix.Connected(), "pipe": pipes.Writing(), "tls": tls.Tls("client")}
KINDS = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture
def loop() -> Iterator[tokioloop.TokioLoop]:
    """A loop that coalesces; on a failure to close what a test left open, the collector warns."""
    loop = tokioloop.new_coalescing_event_loop()
    yield loop
    loop.close()


def run(loop: asyncio.AbstractEventLoop, main: Awaitable[T]) -> T:
    """Run it for at most 15 s."""

    async def limited() -> T:
        async with asyncio.timeout(15):
            return await main

    return loop.run_until_complete(limited())


def has_something(peer: Any) -> bool:
    """Is there anything for the peer to receive?"""
    fd = getattr(peer, "fd", None) or getattr(peer, "sock", peer).fileno()
    return bool(select.select([fd], [], [], 0)[0])


async def connected(loop: asyncio.AbstractEventLoop, kind: str) -> tuple[Any, Any, Recorder]:
    """A transport, its peer and its protocol, in a turn in which nothing was written yet."""
    protocol = Recorder(loop)
    transport, peer = await MAKERS[kind].connect(loop, protocol)
    await turns(2)
    return transport, peer, protocol


async def ended(transport: Any, peer: Any, protocol: Recorder) -> None:
    transport.abort()
    await protocol.lost
    peer.close()


def sends(loop: Any) -> int:
    """How often the loop's endpoints have sent."""
    return sum(found.get("messages_out", 0) for found in loop.stats()["endpoints"])


# ---- the switch


def test_it_is_off_and_takes_any_truth_at_any_moment() -> None:
    with support.running() as loop:
        found: list[bool] = [loop.coalesce_writes]  # type: ignore[attr-defined]
        for value in (True, 0, "yes", None, [1], []):
            loop.coalesce_writes = value  # type: ignore[attr-defined]
            found.append(loop.coalesce_writes)  # type: ignore[attr-defined]
        assert found == [False, True, False, True, False, True, False]


def test_a_value_without_truth_raises_and_changes_nothing(loop: Any) -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise LookupError("undecided")

    with pytest.raises(LookupError, match="undecided"):
        loop.coalesce_writes = Undecided()
    with pytest.raises((AttributeError, TypeError)):
        del loop.coalesce_writes
    assert loop.coalesce_writes is True


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_the_environment_switches_it_for_new_loops(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv("TOKIOLOOP_COALESCE", value)
    with support.running() as loop:
        monkeypatch.delenv("TOKIOLOOP_COALESCE")
        assert loop.coalesce_writes is on  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["2", "yes", "true", " 1", "-1"])
def test_another_value_in_the_environment_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    before = support.fds()
    monkeypatch.setenv("TOKIOLOOP_COALESCE", value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"TOKIOLOOP_COALESCE must be 1 or 0, not {value}"):
            support.new_loop()
    assert support.fds() == before


# ---- the turn


@KINDS
def test_the_writes_of_a_turn_leave_when_it_ends_by_one_send(loop: Any, kind: str) -> None:
    async def main() -> tuple[bool, int, bytes]:
        transport, peer, protocol = await connected(loop, kind)
        before = sends(loop)
        for number in range(4):
            transport.write(b"%d" % number)
        transport.writelines([b"4", b"", b"5"])
        early = has_something(peer)
        await asyncio.sleep(0)
        made = sends(loop) - before
        got = await aside(exactly, peer, 6)
        await ended(transport, peer, protocol)
        return early, made, got

    assert run(loop, main()) == (False, 1, b"012345")


def test_every_transport_of_a_turn_has_its_own_send_however_many_there_are(loop: Any) -> None:
    async def main() -> tuple[list[bool], int]:
        made = [await connected(loop, "unix") for _ in range(40)]
        before = sends(loop)
        for text in (b"one ", b"two"):
            for transport, _, _ in made:
                transport.write(text)
        early = [has_something(peer) for _, peer, _ in made]
        await asyncio.sleep(0)
        total = sends(loop) - before
        for transport, peer, protocol in made:
            assert exactly(peer, 7) == b"one two"
            await ended(transport, peer, protocol)
        return early, total

    assert run(loop, main()) == ([False] * 40, 40)


def test_the_high_water_mark_ends_it_early_so_that_flow_control_is_the_same(loop: Any) -> None:
    async def main() -> tuple[Any, ...]:
        transport, peer, protocol = await connected(loop, "tcp")
        transport.set_write_buffer_limits(high=1000, low=100)
        transport.write(bytes(1000))
        below = has_something(peer)
        transport.write(b"x")
        over = exactly(peer, 1001) == bytes(1000) + b"x", protocol.calls.count("pause_writing")
        transport.write(bytes(12 * 1024 * 1024))
        paused = protocol.calls.count("pause_writing")
        await ended(transport, peer, protocol)
        return below, over, paused

    assert run(loop, main()) == (False, (True, 0), 1)


@pytest.mark.parametrize(
    "call",
    [
        "get_write_buffer_size",
        "set_write_buffer_limits",
        "abort",
        "close",
        "write_eof",
        "get_extra_info",
        "switch off",
    ],
)
@KINDS
def test_what_depends_on_it_has_it_leave_at_once(loop: Any, kind: str, call: str) -> None:
    if (kind, call) == ("tls", "write_eof"):
        pytest.skip("TLS has no half to end")

    async def main() -> bytes:
        transport, peer, protocol = await connected(loop, kind)
        transport.write(b"one ")
        transport.write(b"two")
        if call == "switch off":
            loop.coalesce_writes = False
        elif call == "get_extra_info":
            transport.get_extra_info("sockname")
            assert not has_something(peer)
            transport.get_extra_info("pipe" if kind == "pipe" else "socket")
        else:
            getattr(transport, call)()
        got = exactly(peer, 7)  # blocks: the loop does not run meanwhile
        await ended(transport, peer, protocol)
        return got

    assert run(loop, main()) == b"one two"


@KINDS
@pytest.mark.parametrize("how", ["interrupt", "exit", "stop"])
def test_it_leaves_however_the_turn_ends(loop: Any, kind: str, how: str) -> None:
    transport, peer, protocol = run(loop, connected(loop, kind))

    def write() -> None:
        transport.write(b"one ")
        transport.write(b"two")
        if how == "stop":
            return loop.stop()
        raise KeyboardInterrupt if how == "interrupt" else SystemExit

    loop.call_soon(write)
    try:
        loop.run_forever()
    except (KeyboardInterrupt, SystemExit):
        assert how != "stop"
    else:
        assert how == "stop"
    assert exactly(peer, 7) == b"one two"
    run(loop, ended(transport, peer, protocol))


@KINDS
def test_it_leaves_though_the_signal_handler_that_wrote_raises(loop: Any, kind: str) -> None:
    transport, peer, protocol = run(loop, connected(loop, kind))

    def handle(*_: Any) -> None:
        transport.write(b"one ")
        transport.write(b"two")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # the loop is idle by then
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert exactly(peer, 7) == b"one two"
    run(loop, ended(transport, peer, protocol))


@KINDS
def test_what_is_written_outside_of_a_turn_or_by_another_thread_is_sent_at_once(loop: Any, kind: str) -> None:
    transport, peer, protocol = run(loop, connected(loop, kind))
    transport.write(b"one ")
    assert exactly(peer, 4) == b"one "

    async def main() -> tuple[bool, bytes]:
        transport.write(b"two ")
        early = has_something(peer)
        with peers.thread(transport.write, b"three"):
            pass
        return early, exactly(peer, 9)

    # In its place, behind what the loop's own thread has written.
    assert run(loop, main()) == (False, b"two three")
    run(loop, ended(transport, peer, protocol))


def test_a_protocol_that_writes_when_it_is_resumed_is_not_forgotten(loop: Any) -> None:
    async def main() -> int:
        transport, peer, protocol = await connected(loop, "tcp")
        protocol.hooks["resume_writing"] = lambda: transport.write(b"end")
        size = 3_000_000
        transport.write(bytes(size))
        got = await aside(exactly, peer, size + 3)
        await ended(transport, peer, protocol)
        assert got.endswith(b"end")
        return len(got)

    assert run(loop, main()) == 3_000_003


# ---- forks


@KINDS
@pytest.mark.parametrize("end", ["exits", "closes", "aborts", "leaves the loop"])
def test_a_fork_has_it_leave_before(loop: Any, kind: str, end: str) -> None:
    parent = os.getpid()

    async def main() -> tuple[bytes, bytes]:
        transport, peer, protocol = await connected(loop, kind)

        def fork() -> bytes:
            transport.write(b"one ")
            transport.write(b"two")
            if (pid := os.fork()) == 0:
                end_child(transport, end)
            got = exactly(peer, 7)  # blocks: the turn does not end meanwhile
            programs.reap(pid)
            transport.close()
            return got

        first = await in_callback(fork)
        rest = await aside(drain, peer)
        await protocol.lost
        peer.close()
        return first, rest

    try:
        assert run(loop, main()) == (b"one two", b"")
    finally:
        if os.getpid() != parent:
            os._exit(0)


@KINDS
@pytest.mark.parametrize("end", ["exits", "closes", "aborts", "drops"])
def test_the_child_of_another_threads_fork_sends_nothing_of_it(loop: Any, kind: str, end: str) -> None:
    """The loop's own thread is not there in the child, and goes on in the parent."""

    async def main() -> bytes:
        transport, peer, _ = await connected(loop, kind)

        def fork() -> int:
            if (pid := os.fork()) == 0:
                if end == "closes" and kind != "tls":  # whose close_notify the peer would take for the parent's
                    transport.close()
                elif end == "aborts":
                    transport.abort()
                elif end == "drops":
                    loop._close_core()
                os._exit(0)
            return pid

        transport.write(b"one ")
        transport.write(b"two")
        with peers.thread(fork) as forked:
            programs.reap(forked.result())
        assert not has_something(peer)
        await asyncio.sleep(0)
        transport.write(b" three")
        transport.close()
        return await aside(drain, peer)

    assert run(loop, main()) == b"one two three"


# ---- datagrams


def test_the_datagrams_of_a_turn_leave_when_it_ends(loop: Any) -> None:
    async def main() -> tuple[Any, ...]:
        with far_end() as far:
            to = far.getsockname()
            async with endpoint(loop) as protocol:
                await turns(2)
                for number in range(5):
                    protocol.transport.sendto(b"%d" % number, to)
                early = has_something(far)
                await asyncio.sleep(0)
                first = receive(far, 5)
                for call in ("get_write_buffer_size", "socket", "switch"):
                    protocol.transport.sendto(call.encode(), to)
                    assert not has_something(far)
                    if call == "socket":
                        protocol.transport.get_extra_info("socket")
                    elif call == "switch":
                        loop.coalesce_writes = False
                    else:
                        assert protocol.transport.get_write_buffer_size() == 0
                    assert receive(far, 1) == [call.encode()]
                return early, first

    assert run(loop, main()) == (False, [b"0", b"1", b"2", b"3", b"4"])


def test_datagrams_of_a_connected_endpoint_are_sent_at_once(loop: Any) -> None:
    """A call that sends several of them loses errors."""

    async def main() -> list[bytes]:
        with far_end() as far:
            async with endpoint(loop, remote_addr=far.getsockname()) as protocol:
                protocol.transport.sendto(b"one")
                protocol.transport.sendto(b"two")
                return receive(far, 2)

    assert run(loop, main()) == [b"one", b"two"]


def test_what_the_kernel_says_against_a_datagram_is_told_when_the_turn_ends(loop: Any) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="elsewhere")
    seen: list[str] = []

    async def main() -> tuple[Any, ...]:
        place.set("the endpoint's")
        protocol = Datagrams(loop, error_received=lambda exc: seen.append(place.get()))
        with far_end() as far:
            async with endpoint(loop, protocol, local_addr=("127.0.0.1", 0)) as protocol:
                await turns(2)
                protocol.transport.set_write_buffer_limits(high=1 << 20)
                for data in (b"one", bytes(70000), b"two"):
                    protocol.transport.sendto(data, far.getsockname())
                early = len(protocol.failures)
                await asyncio.sleep(0)
                return early, [failure.errno for failure in protocol.failures], receive(far, 2)  # type: ignore[attr-defined]

    assert run(loop, main()) == (0, [errno.EMSGSIZE], [b"one", b"two"])
    assert seen == ["the endpoint's"]


@pytest.mark.parametrize("by_thread", [False, True])
def test_datagrams_are_sent_once_across_a_fork(loop: Any, by_thread: bool) -> None:
    async def main() -> list[bytes]:
        with far_end() as far:
            async with endpoint(loop) as protocol:
                await turns(2)
                send: Callable[[bytes], None] = lambda data: protocol.transport.sendto(data, far.getsockname())  # noqa: E731

                def fork() -> int:
                    if (pid := os.fork()) == 0:
                        protocol.transport.close()
                        os._exit(0)
                    return pid

                send(b"one")
                send(b"two")
                if by_thread:
                    with peers.thread(fork) as forked:
                        programs.reap(forked.result())
                else:
                    programs.reap(fork())
                assert has_something(far) is not by_thread
                await asyncio.sleep(0)
                send(b"end")
                return await aside(receive, far, 3)

    assert run(loop, main()) == [b"one", b"two", b"end"]


# ---- others


def test_a_file_is_sent_behind_what_was_written(loop: Any, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"file")

    async def main() -> bytes:
        transport, peer, protocol = await connected(loop, "tcp")
        transport.write(b"before ")
        with path.open("rb") as file:
            await loop.sendfile(transport, file)
        transport.write(b" after")
        transport.close()
        got = await aside(drain, peer)
        await protocol.lost
        return got

    assert run(loop, main()) == b"before file after"


def test_two_loops_in_two_threads_keep_to_themselves() -> None:
    def work(number: int) -> bytes:
        loop = tokioloop.new_coalescing_event_loop()

        async def main() -> bytes:
            transport, peer, protocol = await connected(loop, "unix")
            got = b""
            for _ in range(100):
                transport.write(b"%d" % number)
                transport.write(b"!")
                await asyncio.sleep(0)
                got += exactly(peer, 2)
            await ended(transport, peer, protocol)
            return got

        try:
            return run(loop, main())
        finally:
            loop.close()

    with peers.thread(work, 1) as one, peers.thread(work, 2) as two:
        assert (one.result(), two.result()) == (b"1!" * 100, b"2!" * 100)
    assert threading.active_count() >= 1


def test_a_corked_transport_that_is_closed_under_its_feet_is_lost_with_an_error(loop: Any) -> None:
    ours, theirs = peers.pair()

    async def main() -> Any:
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        transport.write(b"nowhere")
        ours.close()
        return await protocol.lost

    with theirs:
        reason = run(loop, main())
        assert isinstance(reason, OSError)
        assert reason.errno == errno.EBADF
        theirs.shutdown(socket.SHUT_WR)


def test_a_look_that_a_callback_takes_has_it_leave_before(loop: Any) -> None:
    """As nest_asyncio takes it where it is applied to a running loop: it may wait for the answer."""

    async def main() -> tuple[bytes, bool]:
        transport, peer, protocol = await connected(loop, "unix")
        transport.write(b"asked")
        loop._selector.select(0)
        asked = exactly(peer, 5)
        transport.write(b"more")
        early = has_something(peer)
        await ended(transport, peer, protocol)
        return asked, early

    assert run(loop, main()) == (b"asked", False)


def test_a_turn_inside_a_turn_has_it_leave_before(loop: Any) -> None:
    """As nest_asyncio runs them: the inner turn may wait for what the outer one has written."""

    async def main() -> tuple[bytes, bool, bytes]:
        transport, peer, protocol = await connected(loop, "unix")
        transport.write(b"outer")
        loop.call_soon(transport.write, b"inner")
        loop._run_once()
        both = exactly(peer, 10)
        transport.write(b"rest")
        early = has_something(peer)
        await asyncio.sleep(0)
        rest = exactly(peer, 4)
        await ended(transport, peer, protocol)
        return both, early, rest

    assert run(loop, main()) == (b"outerinner", False, b"rest")
