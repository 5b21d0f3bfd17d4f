"""communicate()."""

from __future__ import annotations

import asyncio
import signal

import pytest

from .._kit import clause
from .helpers import PIPE, no_children, sh


@clause("subprocess.communicate.both-ways")
def test_input_goes_in_and_both_outputs_come_out(run):
    async def main():
        process = await sh("cat; echo err >&2; exit 2", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        return await process.communicate(b"some input"), process.returncode

    assert run(main()) == ((b"some input", b"err\n"), 2)


@clause("subprocess.communicate.both-ways")
def test_with_empty_input_stdin_is_closed(run):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate(b""), process.returncode

    assert run(main()) == ((b"", None), 0)


@clause("subprocess.communicate.no-input")
def test_without_input_stdin_is_closed(run):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate(), process.returncode

    assert run(main()) == ((b"", None), 0)


@clause("subprocess.communicate.both-ways")
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_input_is_any_bytes(run, kind):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        return await process.communicate(kind(b"some input"))

    assert run(main()) == (b"some input", None)


@clause("subprocess.communicate.both-ways")
def test_output_that_came_before_is_not_lost(run):
    async def main():
        process = await sh("echo early; read line; echo late", stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"early\n"
        return await process.communicate(b"\n")

    assert run(main()) == (b"late\n", None)


@clause("subprocess.communicate.megabytes")
@pytest.mark.timeout(60)
def test_megabytes_go_both_ways(loop):
    data = bytes(range(256)) * (8 << 12)

    async def main():
        process = await sh("tee /dev/stderr", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        return await process.communicate(data), process.returncode

    (out, err), code = loop.run_until_complete(main())
    assert code == 0
    assert out == data and err == data


@clause("subprocess.communicate.megabytes")
@pytest.mark.timeout(60)
def test_several_children_pass_megabytes_on_at_once(loop):
    async def child(n):
        data = bytes([n]) * (2 << 20)
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(data)
        return out == data

    async def main():
        return await asyncio.gather(*(child(n) for n in range(5)))

    assert loop.run_until_complete(main()) == [True] * 5


@clause("subprocess.communicate.broken-pipe")
@pytest.mark.parametrize(
    "script",
    ["exit 0", "exec <&-; echo out", "head -c 10 >/dev/null", "kill -KILL $$"],
    ids=["exits", "closes", "reads a bit", "dies"],
)
def test_a_child_that_does_not_want_its_input_is_no_error(run, script):
    async def main():
        process = await sh(script, stdin=PIPE, stdout=PIPE)
        out, _ = await process.communicate(b"x" * (4 << 20))
        return out, process.returncode

    out, code = run(main())
    assert out == (b"out\n" if "out" in script else b"")
    assert code == (-signal.SIGKILL if "KILL" in script else 0)


@clause("subprocess.communicate.broken-pipe")
def test_writing_to_a_child_that_is_gone_is_no_crash(run):
    async def main():
        process = await sh("exit 0", stdin=PIPE)
        await process.wait()
        for _ in range(10):
            process.stdin.write(b"x" * 1000)
            try:
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                break
        process.stdin.close()
        return process.returncode

    assert run(main()) == 0


@clause("subprocess.communicate.cancelled")
def test_a_cancelled_communicate_leaves_the_child(run):
    async def main():
        process = await sh("echo out; read line; exec sleep 3600", stdin=PIPE, stdout=PIPE)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.communicate(), 0.05)
        assert process.returncode is None
        process.kill()
        return await process.wait()

    assert run(main()) == -signal.SIGKILL
    assert no_children()
