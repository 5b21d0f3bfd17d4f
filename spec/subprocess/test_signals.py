"""Signals to a child, and when they come too late."""

from __future__ import annotations

import signal

import pytest

from .._kit import clause
from .helpers import PIPE, no_children, sh, start, start_gated

WAYS = ["send_signal", "terminate", "kill"]


def send(target, way):
    if way == "send_signal":
        target.send_signal(signal.SIGUSR1)
    else:
        getattr(target, way)()


@clause("subprocess.signals.sent")
@pytest.mark.parametrize(
    ("way", "number"),
    [("send_signal", signal.SIGUSR1), ("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)],
)
def test_a_signal_reaches_the_child(run, way, number):
    async def main():
        process = await sh("echo ready; read line", stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        send(process, way)
        return await process.wait()

    assert run(main()) == -number


@clause("subprocess.signals.sent")
def test_a_child_can_catch_the_signal(run):
    async def main():
        script = "trap 'echo caught' USR1; trap 'exit 5' TERM; echo ready; while :; do read line; done"
        process = await sh(script, stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        process.stdin.write(b"\n")
        assert await process.stdout.readline() == b"caught\n"
        process.terminate()
        process.stdin.write(b"\n")
        return await process.wait()

    assert run(main()) == 5


@clause("subprocess.signals.refused")
@pytest.mark.parametrize("wrong", ["TERM", None, 1.5])
def test_what_is_no_signal_is_refused(run, wrong, saw):
    async def main():
        process = await sh("read line", stdin=PIPE)
        with pytest.raises(TypeError):
            process.send_signal(wrong)
        with pytest.raises((OSError, ValueError)) as caught:
            process.send_signal(100_000)
        saw("subprocess.signals.refused", "OSError" if isinstance(caught.value, OSError) else "ValueError")
        process.kill()
        return await process.wait()

    assert run(main()) == -signal.SIGKILL


@clause("subprocess.signals.after-exit")
@pytest.mark.parametrize("way", WAYS)
def test_a_signal_after_the_end_is_an_error(run, way):
    async def main():
        transport, protocol = await start("exit 3")
        await protocol.lost.wait()
        with pytest.raises(ProcessLookupError):
            send(transport, way)
        assert transport.get_returncode() == 3

    run(main())


@clause("subprocess.signals.race")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pipes", [None, PIPE], ids=["no pipes", "pipes"])
def test_a_signal_to_a_child_that_just_exited_is_no_error(run, way, pipes, saw):
    async def main():
        transport, protocol, finish = await start_gated("exit 3", stdout=pipes, stderr=pipes)
        finish()
        for _ in range(3):
            send(transport, way)
        await protocol.lost.wait()
        return transport.get_returncode()

    code = run(main())
    assert code in (3, 255)  # Popen may have taken the status
    own = "its own return code"
    saw("subprocess.signals.race", own if code == 3 else "255, where the status was taken on the way")
    assert no_children()


@clause("subprocess.signals.status-kept")
@pytest.mark.parametrize("way", WAYS)
def test_a_signal_to_a_child_that_just_exited_leaves_its_status(run, way):
    async def main():
        transport, protocol, finish = await start_gated("exit 3")
        finish()
        send(transport, way)
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 3


@clause("subprocess.signals.after-reap")
@pytest.mark.parametrize("way", WAYS)
def test_a_signal_while_another_process_has_the_pipes_is_no_error(run, way):
    async def main():
        transport, protocol = await start("exec 3<&0; (read line <&3) & exit 3")
        await protocol.exited.wait()
        send(transport, way)
        transport.get_pipe_transport(0).write(b"\n")
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 3


@clause("subprocess.signals.number-reused")
def test_a_child_of_the_same_number_gets_no_signal_of_its_predecessors(run):
    async def main():
        first, protocol = await start("exec 3<&0; (read line <&3) & exit 3")
        await protocol.exited.wait()
        second = await sh("read line; exit 4", stdin=PIPE)
        # As if the kernel had given out the number again.
        first.get_extra_info("subprocess").pid = second.pid
        first.kill()
        second.stdin.write(b"\n")
        first.get_pipe_transport(0).write(b"\n")
        await protocol.lost.wait()
        return await second.wait()

    assert run(main()) == 4
