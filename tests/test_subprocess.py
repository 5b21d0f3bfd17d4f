"""What our subprocesses do beyond the suite's clauses: without pidfds, without descriptors, without leaks."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import subprocess
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from tests import support

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not support.OURS, reason="promises of ours"),
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no pidfds"),
]

PIPE = asyncio.subprocess.PIPE


def run(coroutine: Any) -> Any:
    with support.running() as loop:
        return loop.run_until_complete(asyncio.wait_for(coroutine, support.TIMEOUT))


async def sh(script: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("/bin/sh", "-c", script, **options)


def waiting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("tokioloop-waitpid-")]


@pytest.fixture(params=[errno.ENOSYS, errno.EPERM, errno.EMFILE], ids=errno.errorcode.get)
def no_pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox, on an old kernel, or without descriptors left."""

    def refuse(_pid: int) -> int:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfds_threads_wait_for_children() -> None:
    async def main() -> None:
        process = await sh("cat; exit 3", stdin=PIPE, stdout=PIPE)
        assert len(waiting_threads()) == 1
        assert await process.communicate(b"through") == (b"through", None)
        assert process.returncode == 3
        killed = await sh("exec sleep 3600")
        killed.kill()
        assert await killed.wait() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            killed.kill()
        many = await asyncio.gather(*(sh(f"exit {n}") for n in range(30)))
        assert await asyncio.gather(*(each.wait() for each in many)) == list(range(30))

    run(main())
    assert support.wait_until(lambda: not waiting_threads())


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfds_closing_a_transport_kills_and_reaps() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "3600")
            transport.close()
            assert await transport._wait() == -signal.SIGKILL  # type: ignore[attr-defined]
        return transport.get_pid()

    pid = run(main())
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfds_a_child_of_a_closed_loop_is_reaped_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> asyncio.subprocess.Process:
        return await sh("exec sleep 3600")

    with caplog.at_level(logging.WARNING, "asyncio"):
        process = run(main())
        os.kill(process.pid, signal.SIGTERM)
        assert support.wait_until(lambda: not waiting_threads())
    assert "is closed" in caplog.text
    popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
    assert popen.returncode == -signal.SIGTERM
    process._transport._closed = True  # type: ignore[attr-defined]


def children() -> set[str]:
    """The children of this process, those to be reaped among them."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize("which", ["connect_write_pipe", "connect_read_pipe"])
def test_pipes_that_cannot_be_connected_end_the_child_and_raise(which: str) -> None:
    refused = 0

    async def refuse(*_: object) -> None:
        nonlocal refused
        refused += 1
        raise OSError(errno.EMFILE, "no descriptors")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # It ends when it is told: asyncio's debug mode asks the pipe for its number once it is connected.
        first = await sh("read line", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        first.stdin.close()
        await first.wait()
        await asyncio.sleep(0)
        before = support.fds()
        setattr(loop, which, refuse)
        with pytest.raises(OSError, match="no descriptors"):
            await sh("exec sleep 3600", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        delattr(loop, which)
        for _ in range(3):
            await asyncio.sleep(0)
        assert support.fds() == before
        assert await (await sh("exit 4")).wait() == 4

    there = children()
    run(main())
    assert refused == 1
    assert children() == there


def test_a_loop_closed_with_children_alive_keeps_no_descriptor_of_theirs() -> None:
    async def main() -> list[asyncio.subprocess.Process]:
        return [await sh("exec sleep 3600") for _ in range(5)]

    before = support.fds()
    processes = run(main())
    assert support.fds() == before
    for process in processes:
        popen = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
        assert popen.poll() is None
        popen.kill()
        assert popen.wait() == -signal.SIGKILL
        process._transport._closed = True  # type: ignore[attr-defined]


def test_a_child_whose_loop_was_closed_is_killed_with_its_transport_and_nothing_raises() -> None:
    done = support.python(
        """
        import asyncio, gc, os
        from tests import support
        async def main():
            pipe = asyncio.subprocess.PIPE
            return (await asyncio.create_subprocess_exec("sleep", "3600", stdin=pipe, stdout=pipe, stderr=pipe)).pid
        before = len(support.fds())
        loop = support.new_loop()
        pid = loop.run_until_complete(main())
        loop.close()
        del loop
        gc.collect()
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # Popen was fast enough to reap it
        print(len(support.fds()) - before, flush=True)
        """
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_transport_is_freed_after_its_child() -> None:
    freed = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            process = await sh("cat", stdin=PIPE, stdout=PIPE)
            await process.communicate(b"through")
            freed.append(weakref.ref(process._transport))  # type: ignore[attr-defined]
        assert not loop._children  # type: ignore[attr-defined]

    run(main())
    gc.collect()
    assert [reference() for reference in freed] == [None] * 3


def test_nothing_is_sent_to_the_number_of_a_child_that_was_reaped() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Another process keeps the pipes, so that the transport is not lost.
        script = "exec 3<&0; (read line <&3) & exit 3"
        first, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "/bin/sh", "-c", script)
        while first.get_returncode() is None:
            await asyncio.sleep(0.001)
        second = await sh("read line; exit 4", stdin=PIPE)
        first._pid = first.get_extra_info("subprocess").pid = second.pid  # type: ignore[attr-defined]
        for send in (first.kill, first.terminate, first.close):
            send()
        assert second.stdin is not None
        second.stdin.write(b"\n")
        assert await second.wait() == 4

    run(main())


def test_popen_in_another_thread_and_the_loop_agree_on_the_status() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for n in range(50):
            process = await sh(f"exit {n}")
            popen: subprocess.Popen[bytes] = process._transport.get_extra_info("subprocess")  # type: ignore[attr-defined]
            there = loop.run_in_executor(None, popen.wait)
            assert await process.wait() == await there == n

    run(main())
