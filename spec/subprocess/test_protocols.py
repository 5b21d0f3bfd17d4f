"""What a transport tells, and what a protocol is told, in which order."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from .._kit import clause
from .helpers import DEVNULL, PIPE, Recorder, sh, start


@clause("subprocess.transport.getters")
def test_the_transport_tells_pid_pipes_popen_and_code(run):
    async def main():
        transport, protocol = await start("echo $$; read line; exit 9", stderr=DEVNULL)
        await protocol.until(1, b"\n")
        assert transport.get_pid() == int(protocol.data[1])
        popen = transport.get_extra_info("subprocess")
        assert isinstance(popen, subprocess.Popen) and popen.pid == transport.get_pid()
        assert transport.get_returncode() is None
        assert transport.get_pipe_transport(0) is not None and transport.get_pipe_transport(1) is not None
        assert [transport.get_pipe_transport(fd) for fd in (2, 3, -1)] == [None] * 3
        assert not transport.is_closing()
        assert str(transport.get_pid()) in repr(transport)
        transport.get_pipe_transport(0).write(b"\n")
        await protocol.lost.wait()
        assert transport.get_returncode() == 9
        assert popen.returncode == 9

    run(main())


@clause("subprocess.transport.getters")
def test_a_process_tells_its_pid_and_code(run):
    async def main():
        process = await sh("read line; exit 9", stdin=PIPE)
        assert process.pid > 0 and process.returncode is None
        process.stdin.write(b"\n")
        assert await process.wait() == process.returncode == 9

    run(main())


SCRIPTS = {
    "silent": "exit 0",
    "talks": "echo out; echo err >&2; exit 4",
    "talks much": "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2",
    "is killed": "echo out; kill -KILL $$",
    "closes early": "exec >&- 2>&- <&-; exit 6",
}


@clause("subprocess.protocol.order")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_the_connection_is_made_first_and_lost_last(run, script):
    async def main():
        transport, protocol = await start(script)
        await protocol.lost.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        return transport, protocol

    transport, protocol = run(main())
    assert protocol.events[0] == ("made", transport)
    assert protocol.events[-1] == ("lost", None)
    names = protocol.names()
    assert [names.count(name) for name in ("made", "exited", "closed", "lost")] == [1, 1, 3, 1]


@clause("subprocess.protocol.order")
def test_a_child_without_pipes_exits_and_is_lost(run):
    async def main():
        transport, protocol = await start("exit 0", stdin=None, stdout=None, stderr=None)
        await protocol.lost.wait()
        assert transport.get_returncode() == 0
        return protocol.names()

    assert run(main()) == ["made", "exited", "lost"]


@clause("subprocess.protocol.pipes")
def test_all_data_comes_before_the_pipe_is_lost(run):
    count = 1 << 20
    script = f"head -c {count} /dev/zero | tr '\\0' o; head -c {count} /dev/zero | tr '\\0' e >&2"

    async def main():
        _, protocol = await start(script, stdin=DEVNULL)
        await protocol.lost.wait()
        return protocol

    protocol = run(main())
    assert protocol.data == {1: b"o" * count, 2: b"e" * count}
    for fd in (1, 2):
        mine = [event for event in protocol.events if event[0] in ("data", "closed") and event[1] == fd]
        assert mine[-1] == ("closed", fd, None)
        assert mine.count(("closed", fd, None)) == 1


@clause("subprocess.protocol.pipe-kept-open")
def test_an_exit_is_told_while_another_process_has_the_pipe(run):
    async def main():
        # The one in the background keeps the pipes; its input ends when the transport of stdin is closed.
        transport, protocol = await start("exec 3<&0; (read line <&3; echo late) & exit 3")
        await protocol.exited.wait()
        assert transport.get_returncode() == 3
        for _ in range(10):
            await asyncio.sleep(0)
        assert not protocol.lost.is_set() and not protocol.closed[1].is_set()
        transport.get_pipe_transport(0).write(b"now\n")
        await protocol.lost.wait()
        return protocol

    protocol = run(main())
    assert protocol.data[1] == b"late\n"
    names = protocol.names()
    assert names.index("exited") < names.index("data") and names[-1] == "lost"


@clause("subprocess.protocol.switch")
def test_later_callbacks_go_to_the_new_protocol(run):
    async def main():
        transport, first = await start("read line; echo $line; exit 0")
        second = Recorder()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.get_pipe_transport(0).write(b"to the second\n")
        await second.lost.wait()
        assert first.names() == ["made"]
        assert second.data[1] == b"to the second\n"
        assert second.names().count("exited") == 1

    run(main())
