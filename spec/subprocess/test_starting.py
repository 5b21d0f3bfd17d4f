"""Starting: programs, commands, and what is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from .._kit import clause
from .helpers import PIPE, Recorder, descriptors, no_children, output, refused, sh


@clause("subprocess.start.exec")
def test_arguments_reach_the_program_as_they_are(run):
    arguments = ["", " ", "a b", "$HOME", "*", "'", '"', "\\", "\n", "-e", "ä", "end"]

    async def main():
        script = 'for each in "$@"; do printf "%s\\0" "$each"; done'
        process = await sh(script, *arguments, stdout=PIPE)
        return (await process.communicate())[0]

    assert run(main()).decode().split("\0")[:-1] == arguments


@clause("subprocess.start.exec")
def test_the_transport_is_one_of_subprocesses_and_the_protocol_the_factorys(run):
    made = []

    def factory():
        made.append(Recorder())
        return made[0]

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(factory, "/bin/sh", "-c", "exit 0")
        assert made == [protocol]
        assert isinstance(transport, asyncio.SubprocessTransport)
        assert transport.get_protocol() is protocol
        assert protocol.events[0] == ("made", transport)
        await protocol.lost.wait()

    run(main())


@clause("subprocess.start.shell")
@pytest.mark.parametrize("command", ["echo one; echo two | cat", b"echo one; echo two | cat"])
def test_the_shell_runs_a_command(run, command):
    async def main():
        process = await asyncio.create_subprocess_shell(command, stdout=PIPE)
        return await process.communicate()

    assert run(main()) == (b"one\ntwo\n", None)


@clause("subprocess.start.shell")
def test_subprocess_shell_returns_transport_and_protocol(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_shell(Recorder, "echo out; echo err >&2; exit 3")
        await protocol.lost.wait()
        return protocol.data, transport.get_returncode()

    assert run(main()) == ({1: b"out\n", 2: b"err\n"}, 3)


@clause("subprocess.start.types")
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_program_and_arguments_are_str_bytes_or_paths(run, tmp_path, kind):
    (tmp_path / "file").write_bytes(b"content")

    async def main():
        process = await asyncio.create_subprocess_exec(kind("/bin/cat"), kind(str(tmp_path / "file")), stdout=PIPE)
        return await process.communicate()

    assert run(main()) == (b"content", None)


@clause("subprocess.start.types")
def test_a_program_is_looked_for_on_the_path(run):
    async def main():
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
        return await process.wait()

    assert run(main()) == 7


@clause("subprocess.start.failure")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"program": "/no/such/program"}, FileNotFoundError),
        ({"program": "/etc/passwd"}, PermissionError),
        ({"program": "/"}, PermissionError),
        ({"program": "/bin/sh", "cwd": "/no/such/folder"}, FileNotFoundError),
        ({"program": "/bin/sh\0"}, ValueError),
    ],
)
def test_a_program_that_cannot_be_started_raises(loop, run, options, error):
    async def main(*, program, **others):
        for _ in range(3):
            with pytest.raises(error):
                await asyncio.create_subprocess_exec(program, stdin=PIPE, stdout=PIPE, stderr=PIPE, **others)
        await asyncio.sleep(0)

    run(output("exit 0"))
    before = descriptors()
    run(main(**options))
    assert descriptors() == before
    assert no_children()
    assert run(output("echo goes on")) == "goes on"


@clause("subprocess.start.text-refused")
@pytest.mark.parametrize(
    "wrong",
    [
        {"universal_newlines": True},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"bufsize": 4096},
        {"bufsize": 1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_text_and_buffers_are_refused(loop, run, wrong):
    refused(run, loop.subprocess_exec(Recorder, "/bin/true", **wrong), ValueError)
    refused(run, loop.subprocess_shell(Recorder, "true", **wrong), ValueError)
    refused(run, asyncio.create_subprocess_exec("/bin/true", **wrong), ValueError)
    refused(run, asyncio.create_subprocess_shell("true", **wrong), ValueError)


@clause("subprocess.start.text-refused")
def test_a_contradicting_shell_is_refused(loop, run):
    refused(run, loop.subprocess_exec(Recorder, "true", shell=True), ValueError)
    refused(run, loop.subprocess_shell(Recorder, "true", shell=False), ValueError)


@clause("subprocess.start.command-refused")
@pytest.mark.parametrize("wrong", [["true"], ("true",), None, 1, Path("true")])
def test_a_command_that_is_no_string_is_refused(loop, run, wrong):
    refused(run, loop.subprocess_shell(Recorder, wrong), ValueError)


@clause("subprocess.start.unknown-argument")
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"no_such_argument": 1}, TypeError),
        ({"pass_fds": ["one"]}, (TypeError, ValueError)),
        ({"env": {"a=b": "c"}}, ValueError),
        ({"cwd": 1.5}, TypeError),
    ],
    ids=str,
)
def test_what_popen_refuses_is_refused(loop, run, wrong, error):
    errors = error if isinstance(error, tuple) else (error,)
    refused(run, asyncio.create_subprocess_exec("/bin/true", **wrong), *errors)


@clause("subprocess.start.unknown-argument")
def test_stdout_as_standard_output_is_refused(loop, run):
    async def main():
        await asyncio.create_subprocess_exec("/bin/true", stdout=-17)

    refused(run, main(), OSError, ValueError)


@clause("subprocess.start.factory-fails")
def test_an_exception_of_the_factory_is_raised(loop, run):
    def factory():
        raise LookupError("of the factory")

    for start in (loop.subprocess_exec(factory, "/bin/true"), loop.subprocess_shell(factory, "true")):
        refused(run, start, LookupError)


@clause("subprocess.start.cancelled")
@pytest.mark.parametrize("steps", range(1, 8))
def test_cancelling_the_start_leaves_no_process(run, steps):
    async def main():
        task = asyncio.create_task(
            asyncio.create_subprocess_exec("sleep", "3600", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            process = await task
        except asyncio.CancelledError:
            return "cancelled"
        # It had started by then.
        process.kill()
        await process.wait()
        return "started"

    assert run(main()) == "cancelled" or steps > 2
    assert no_children()


@clause("subprocess.start.cancelled")
def test_a_start_that_runs_into_a_time_out_leaves_no_process(run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.create_subprocess_exec("sleep", "3600", stdout=PIPE)

    run(main())
    assert no_children()
    assert subprocess.run(["true"], check=False).returncode == 0
