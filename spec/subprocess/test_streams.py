"""The standard streams of a child."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from .._kit import clause
from .helpers import DEVNULL, PIPE, PIPES, STDOUT, Recorder, output, sh, start


@clause("subprocess.streams.pipes")
@pytest.mark.parametrize("how", ["exec", "shell"])
def test_the_streams_are_pipes_by_default(loop, run, how):
    async def main():
        script = "cat; echo err >&2"
        if how == "exec":
            transport, protocol = await loop.subprocess_exec(Recorder, "/bin/sh", "-c", script)
        else:
            transport, protocol = await loop.subprocess_shell(Recorder, script)
        stdin, stdout, stderr = (transport.get_pipe_transport(fd) for fd in range(3))
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(stdout, asyncio.ReadTransport) and isinstance(stderr, asyncio.ReadTransport)
        stdin.write(b"through")
        stdin.close()
        await protocol.lost.wait()
        assert protocol.data == {1: b"through", 2: b"err\n"}

    run(main())


@clause("subprocess.streams.pipes")
def test_create_subprocess_has_no_pipes_by_default(run):
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert await process.communicate() == (None, None)
        assert process.returncode == 0

    run(main())


@clause("subprocess.streams.pipes")
@pytest.mark.parametrize("only", ["stdin", "stdout", "stderr"])
def test_one_stream_alone_is_a_pipe(run, only):
    async def main():
        script = {"stdin": "cat >/dev/null", "stdout": "echo to stdout", "stderr": "echo to stderr >&2"}[only]
        process = await sh(script, **{only: PIPE})
        assert [getattr(process, name) is not None for name in PIPES] == [name == only for name in PIPES]
        out = await process.communicate(b"in" if only == "stdin" else None)
        assert process.returncode == 0
        return out

    expected = {"stdin": (None, None), "stdout": (b"to stdout\n", None), "stderr": (None, b"to stderr\n")}
    assert run(main()) == expected[only]


@clause("subprocess.streams.inherited")
def test_devnull_is_empty_and_swallows(run):
    async def main():
        process = await sh("cat; echo lost; echo lost >&2", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL)
        assert process.stdin is None and process.stderr is None
        assert await process.communicate() == (b"lost\n", None)

    run(main())


@clause("subprocess.streams.inherited")
@pytest.mark.parametrize("by", ["object", "number"])
def test_files_are_given_to_the_child(run, tmp_path, by):
    (tmp_path / "in").write_bytes(b"from the file")

    async def main(source, target):
        process = await asyncio.create_subprocess_exec("cat", stdin=source, stdout=target)
        assert process.stdin is None and process.stdout is None
        assert await process.wait() == 0

    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        files = (source, target) if by == "object" else (source.fileno(), target.fileno())
        run(main(*files))
        assert os.fstat(source.fileno()) and os.fstat(target.fileno())
    assert (tmp_path / "out").read_bytes() == b"from the file"


@clause("subprocess.streams.inherited")
def test_none_is_inherited(run, tmp_path):
    target = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    saved = os.dup(1)
    try:
        os.dup2(target, 1)

        async def main():
            process = await sh("echo inherited")
            assert await process.wait() == 0

        run(main())
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(target)
    assert (tmp_path / "out").read_bytes() == b"inherited\n"


@clause("subprocess.streams.inherited")
def test_a_pipe_of_the_programs_joins_two_children(run):
    async def main():
        reading, writing = os.pipe()
        first = await sh("echo through the pipe", stdout=writing)
        os.close(writing)
        second = await asyncio.create_subprocess_exec("cat", stdin=reading, stdout=PIPE)
        os.close(reading)
        out, _ = await second.communicate()
        return out, await first.wait()

    assert run(main()) == (b"through the pipe\n", 0)


@clause("subprocess.streams.stderr-to-stdout")
def test_standard_error_goes_the_way_of_standard_output(run):
    async def main():
        process = await sh("echo one; echo two >&2; echo three", stdout=PIPE, stderr=STDOUT)
        assert process.stderr is None
        return await process.communicate()

    assert run(main()) == (b"one\ntwo\nthree\n", None)


@clause("subprocess.streams.stdin-eof")
@pytest.mark.parametrize("how", ["write_eof", "close"])
def test_the_end_of_stdin_comes_after_what_was_written(run, how):
    data = bytes(range(256)) * 2000

    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        process.stdin.write(data[:100])
        process.stdin.write(data[100:])
        getattr(process.stdin, how)()
        assert await process.stdout.read() == data
        assert await process.wait() == 0

    run(main())


@clause("subprocess.streams.stdin-eof")
def test_waiting_for_stdin_to_be_closed(run):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        process.stdin.write(b"all of it")
        process.stdin.close()
        await process.stdin.wait_closed()
        assert process.stdin.is_closing()
        assert await process.stdout.read() == b"all of it"
        assert await process.wait() == 0

    run(main())


@clause("subprocess.streams.child-closes")
def test_a_child_that_closes_its_output_lives_on(run):
    async def main():
        transport, protocol = await start("exec >&-; read line; echo $line >&2; exit 5")
        await protocol.closed[1].wait()
        assert ("closed", 1, None) in protocol.events
        assert transport.get_returncode() is None
        transport.get_pipe_transport(0).write(b"goes on\n")
        await protocol.lost.wait()
        assert protocol.data == {1: b"", 2: b"goes on\n"}
        assert transport.get_returncode() == 5

    run(main())


@clause("subprocess.streams.child-closes")
def test_a_child_that_closes_its_input_lives_on(run):
    async def main():
        transport, protocol = await start("exec <&-; echo closed; exec sleep 3600", stderr=DEVNULL)
        await protocol.closed[0].wait()
        await protocol.until(1, b"closed\n")
        assert transport.get_returncode() is None
        transport.kill()
        await protocol.lost.wait()

    run(main())


@clause("subprocess.streams.flow-control")
def test_drain_waits_for_a_child_that_does_not_read(run):
    data = b"x" * (1 << 20)

    async def main():
        process = await sh("read line; exec cat", stdin=PIPE, stdout=PIPE)
        stopped = await sh("kill -STOP $$; exec wc -c", stdin=PIPE, stdout=PIPE)
        await until_stopped(stopped.pid)
        stopped.stdin.write(data)
        draining = asyncio.create_task(stopped.stdin.drain())
        # The other child's work goes on meanwhile.
        assert await process.communicate(b"line\n" + data) == (data, None)
        assert not draining.done()
        stopped.send_signal(signal.SIGCONT)
        await draining
        stopped.stdin.close()
        assert int(await stopped.stdout.read()) == len(data)
        assert await stopped.wait() == 0

    run(main())


async def until_stopped(pid: int) -> None:
    """Wait until the child has been stopped; that is no exit."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, os.waitid, os.P_PID, pid, os.WSTOPPED)


@clause("subprocess.streams.back-pressure")
def test_a_child_whose_output_is_not_read_is_held_up(run):
    count, limit = 8 << 20, 1 << 16

    async def main():
        process = await asyncio.create_subprocess_exec("head", "-c", str(count), "/dev/zero", stdout=PIPE, limit=limit)
        other = await asyncio.create_subprocess_exec("head", "-c", str(count), "/dev/zero", stdout=PIPE)
        assert len((await other.communicate())[0]) == count
        # As long as the first one's pipe is full, it cannot have exited.
        assert process.returncode is None
        held = len(process.stdout._buffer)
        assert held <= 2 * limit + (1 << 18)
        assert len(await process.stdout.read()) == count
        assert await process.wait() == 0

    run(main())


@clause("subprocess.streams.back-pressure")
def test_lines_are_read_as_they_come(run):
    async def main():
        process = await sh("while read line; do echo got $line; done", stdin=PIPE, stdout=PIPE)
        for n in range(100):
            process.stdin.write(b"%d\n" % n)
            assert await process.stdout.readline() == b"got %d\n" % n
        process.stdin.close()
        assert await process.stdout.read() == b""
        return await process.wait()

    assert run(main()) == 0
    assert run(output("echo another")) == "another"


@clause("subprocess.streams.reopened")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere opening /dev/fd/N is dup(N)")
@pytest.mark.parametrize("name", ["/dev/{}", "/proc/self/fd/{}"], ids=["by-name", "by-number"])
def test_a_child_can_open_its_streams_by_their_paths(run, name):
    names = ["stdin", "stdout", "stderr"] if name == "/dev/{}" else range(3)
    stdin, stdout, stderr = map(name.format, names)

    async def main():
        process = await sh('cat "$1"; echo out >"$2"; echo err >"$3"', stdin, stdout, stderr, **PIPES)
        return await process.communicate(b"in\n"), process.returncode

    assert run(main()) == ((b"in\nout\n", b"err\n"), 0)
