"""Popen's arguments: each has the effect that it has there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from .._kit import clause
from .helpers import PIPE, no_children, output, refused, sh


@clause("subprocess.arguments.place")
def test_cwd_is_where_the_child_starts(run, tmp_path):
    for folder in (tmp_path, str(tmp_path), os.fsencode(tmp_path)):
        assert run(output("pwd -P", cwd=folder)) == os.path.realpath(tmp_path)


@clause("subprocess.arguments.place")
def test_env_is_the_whole_environment_of_the_child(run):
    os.environ["INHERITED"] = "inherited"
    script = 'printf \'%s,%s\' "$INHERITED" "$GIVEN"'
    assert run(output(script)) == "inherited,"
    assert run(output(script, env={"GIVEN": "given"})) == ",given"
    assert run(output(script, env={b"GIVEN": b"bytes"})) == ",bytes"
    assert run(output(script, env={})) == ","


@clause("subprocess.arguments.place")
def test_executable_is_run_in_place_of_the_first_argument(run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "another name", "-c", 'echo "$0"', "zero", executable="/bin/sh", stdout=PIPE
        )
        return await process.communicate()

    assert run(main()) == (b"zero\n", None)


OPEN = """
import os
for fd in range(3, 100):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(fd)
"""


async def open_in_child(**options) -> list[int]:
    """The descriptors that a child has beside the standard ones. Shells know those of one digit only."""
    command = [sys.executable, "-I", "-S", "-c", OPEN]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, **options)
    out, _ = await process.communicate()
    return [int(number) for number in out.split()]


@clause("subprocess.arguments.descriptors")
def test_the_child_has_the_descriptors_of_pass_fds_only(run):
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        assert run(open_in_child(pass_fds=[writing])) == [writing]
        assert run(open_in_child()) == []
    finally:
        os.close(reading)
        os.close(writing)


@clause("subprocess.arguments.descriptors")
def test_a_descriptor_of_pass_fds_is_the_same_file(run):
    async def main(passed):
        process = await asyncio.create_subprocess_exec("cat", f"/dev/fd/{passed}", pass_fds=[passed], stdout=PIPE)
        return await process.communicate()

    reading, writing = os.pipe()
    try:
        os.write(writing, b"through the pipe")
        os.close(writing)
        assert run(main(reading)) == (b"through the pipe", None)
    finally:
        os.close(reading)


@clause("subprocess.arguments.descriptors")
def test_without_close_fds_the_child_has_what_is_inheritable(run):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        found = run(open_in_child(close_fds=False))
        assert writing in found and reading not in found
    finally:
        os.close(reading)
        os.close(writing)


@clause("subprocess.arguments.descriptors")
@pytest.mark.parametrize("close_fds", [True, False])
def test_no_child_has_the_pipes_of_another(run, close_fds):
    async def main():
        first = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, close_fds=close_fds)
        second = await asyncio.create_subprocess_exec("sleep", "3600", stdin=PIPE, stdout=PIPE, close_fds=close_fds)
        # The end of the first one's input would not come if the second one had a copy of its pipe.
        assert await first.communicate(b"through") == (b"through", None)
        second.kill()
        await second.wait()

    run(main())


@clause("subprocess.arguments.session")
def test_a_new_session_is_led_by_the_child(run):
    async def main():
        process = await asyncio.create_subprocess_exec("sleep", "3600", start_new_session=True)
        facts = os.getsid(process.pid), os.getpgid(process.pid)
        process.kill()
        await process.wait()
        return process.pid, facts

    pid, facts = run(main())
    assert facts == (pid, pid)


@clause("subprocess.arguments.session")
def test_the_process_group_is_the_one_given(run):
    async def main():
        first = await asyncio.create_subprocess_exec("sleep", "3600", process_group=0)
        second = await asyncio.create_subprocess_exec("sleep", "3600", process_group=first.pid)
        groups = [os.getpgid(process.pid) for process in (first, second)]
        os.killpg(first.pid, signal.SIGTERM)
        assert await asyncio.gather(first.wait(), second.wait()) == [-signal.SIGTERM] * 2
        return first.pid, groups

    pid, groups = run(main())
    assert groups == [pid, pid]


@clause("subprocess.arguments.preexec")
def test_preexec_fn_is_called_in_the_child(run, tmp_path):
    async def main():
        return await output("pwd -P; ulimit -c", preexec_fn=lambda: os.chdir(tmp_path))

    assert run(main()).split("\n")[0] == os.path.realpath(tmp_path)
    assert os.getcwd() != os.path.realpath(tmp_path)


@clause("subprocess.arguments.preexec")
def test_an_exception_of_preexec_fn_is_raised(run):
    def fails():
        raise LookupError

    refused(run, sh("exit 0", preexec_fn=fails, stdin=PIPE, stdout=PIPE), subprocess.SubprocessError)


@clause("subprocess.arguments.identity")
def test_umask_is_the_childs(run):
    before = os.umask(0o022)
    try:
        assert int(run(output("umask", umask=0o027)), 8) == 0o027
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


@clause("subprocess.arguments.identity")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change them")
def test_user_and_groups_are_the_childs(run):
    assert run(output("id -u; id -g; id -G", user=12, group=34, extra_groups=[56, 78])).split("\n")[:2] == ["12", "34"]
    groups = run(output("id -G", user=12, group=34, extra_groups=[56, 78])).split()
    assert sorted(groups) == ["34", "56", "78"]


@clause("subprocess.arguments.signals-restored")
def test_the_child_is_ended_by_sigpipe(run):
    async def main():
        process = await sh("kill -PIPE $$; exit 3")
        ignoring = await sh("kill -PIPE $$; exit 3", restore_signals=False)
        return await process.wait(), await ignoring.wait()

    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    assert run(main()) == (-signal.SIGPIPE, 3)
    assert no_children()
