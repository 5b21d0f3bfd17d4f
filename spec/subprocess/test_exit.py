"""How the exit of a child is noticed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import threading
import warnings

import pytest

from .._kit import clause, peers
from .helpers import (
    DEVNULL,
    PIPE,
    PIPES,
    descriptors,
    no_children,
    output,
    reap,
    reaped,
    sh,
    start,
    start_gated,
    until_zombie,
)


@clause("subprocess.exit.code")
@pytest.mark.parametrize("code", [0, 1, 2, 127, 128, 200, 255])
def test_the_code_is_the_exit_status(run, code):
    async def main():
        process = await sh(f"exit {code}")
        return await process.wait(), process.returncode

    assert run(main()) == (code, code)


@clause("subprocess.exit.code")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGABRT])
def test_the_code_of_a_signal_is_negative(run, number):
    async def main():
        process = await sh(f"ulimit -c 0; kill -{int(number)} $$; sleep 3600")
        return await process.wait(), process.returncode

    assert run(main()) == (-number, -number)


@clause("subprocess.exit.wait")
def test_every_waiter_and_every_later_one_gets_the_code(run):
    async def main():
        process = await sh("read line; exit 8", stdin=PIPE)
        waiters = [asyncio.create_task(process.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        process.stdin.write(b"\n")
        assert await asyncio.gather(*waiters) == [8] * 5
        assert process.returncode == 8
        assert await process.wait() == 8
        return await process.wait()

    assert run(main()) == 8


@clause("subprocess.exit.wait-pipe-kept-open")
@pytest.mark.parametrize("waits", ["before", "after"])
@pytest.mark.parametrize("how", ["exits", "killed"])
def test_wait_returns_while_another_process_has_the_pipe(run, waits, how):
    async def main():
        # The one in the background keeps stdout and stderr until the gate opens.
        end = "exit 3" if how == "exits" else "kill -9 $$"
        gate, opens = os.pipe()
        process = await sh(f"(read gate </dev/fd/{gate}) & read line; {end}", **PIPES, pass_fds=[gate])
        os.close(gate)
        waiting = [asyncio.create_task(process.wait()) for _ in range(3)] if waits == "before" else []
        await asyncio.sleep(0)
        process.stdin.write(b"exit\n")
        while waits == "after" and process.returncode is None:
            await asyncio.sleep(0)
        codes = await asyncio.gather(*waiting, process.wait())
        assert not process.stdout.at_eof()
        os.close(opens)
        # Their end comes when the one in the background has gone, too.
        assert await process.stdout.read() == await process.stderr.read() == b""
        return set(codes)

    assert run(main()) == {3 if how == "exits" else -9}


@clause("subprocess.exit.wait-cancelled")
def test_a_cancelled_wait_disturbs_nobody(run):
    async def main():
        process = await sh("read line; exit 8", stdin=PIPE)
        waiters = [asyncio.create_task(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[1].cancel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.01)
        assert process.returncode is None
        process.stdin.write(b"\n")
        assert await waiters[0] == await waiters[2] == await process.wait() == 8
        assert waiters[1].cancelled()

    run(main())


@clause("subprocess.exit.stopped")
def test_a_stopped_child_has_not_exited(run):
    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await start("read line; exit 4")
        pid = transport.get_pid()
        transport.send_signal(signal.SIGSTOP)
        # WNOWAIT: it stays there for the loop to take, as it must not.
        await loop.run_in_executor(None, os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        await asyncio.sleep(0.01)
        assert transport.get_returncode() is None and "exited" not in protocol.names()
        transport.send_signal(signal.SIGCONT)
        await loop.run_in_executor(None, os.waitid, os.P_PID, pid, os.WCONTINUED | os.WNOWAIT)
        await asyncio.sleep(0.01)
        assert transport.get_returncode() is None
        transport.get_pipe_transport(0).write(b"\n")
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 4


@clause("subprocess.exit.reaped")
def test_a_child_that_was_waited_for_is_gone(run):
    async def main():
        process = await sh("exit 0")
        await process.wait()
        assert reaped(process.pid)

    run(main())
    assert no_children()


@clause("subprocess.exit.reaped")
def test_no_descriptor_and_no_thread_is_left(run):
    async def main():
        for n in range(20):
            process = await sh("cat; echo err >&2; exit 1", stdin=PIPE, stdout=PIPE, stderr=PIPE)
            assert await process.communicate(b"%d" % n) == (b"%d" % n, b"err\n")
        for _ in range(3):
            await asyncio.sleep(0)

    run(main())
    before, threads = descriptors(), threading.active_count()
    run(main())
    gc.collect()
    assert descriptors() == before
    assert threading.active_count() <= threads


@clause("subprocess.exit.other-children")
def test_children_of_the_program_are_left_to_it(run):
    mine = subprocess.Popen(["/bin/sh", "-c", "exit 6"])
    forked = os.fork()
    if forked == 0:
        os._exit(7)
    until_zombie(mine.pid)
    until_zombie(forked)
    assert run(output("echo hello")) == "hello"
    assert mine.wait() == 6
    assert reap(forked) == 7


@clause("subprocess.exit.reaped-elsewhere")
def test_a_child_reaped_by_somebody_else_has_exited(run, caplog):
    async def main():
        transport, protocol, finish = await start_gated("exit 3", stdout=None, stderr=None)
        finish()
        try:
            assert reap(transport.get_pid()) == 3
        except ChildProcessError:
            pytest.skip("a thread of the loop was faster")
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 255
    assert any(record.name == "asyncio" for record in caplog.records)


@clause("subprocess.exit.reaped-elsewhere")
def test_a_child_that_nobody_may_wait_for_has_exited(run):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:

        async def main():
            process = await sh("read line; exit 3", stdin=PIPE)
            process.stdin.write(b"\n")
            return await process.wait()

        assert run(main()) == 255
    finally:
        signal.signal(signal.SIGCHLD, before)


@clause("subprocess.exit.reaped-by-popen")
def test_a_child_reaped_by_its_popen_object_has_its_own_code(run, caplog):
    async def main():
        transport, protocol, finish = await start_gated("exit 3", stdout=None, stderr=None)
        finish()
        assert transport.get_extra_info("subprocess").poll() == 3
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 3
    assert not caplog.records


@clause("subprocess.exit.many")
@pytest.mark.timeout(120)
def test_five_hundred_children_at_once(loop):
    async def child(n):
        process = await sh('echo "$1"; read line; exit $(($1 % 256))', str(n), stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"%d\n" % n
        nonlocal ready
        ready += 1
        if ready == 500:
            everyone.set()
        await everyone.wait()
        process.stdin.write(b"\n")
        assert await process.wait() == n % 256

    async def main():
        await asyncio.gather(*(child(n) for n in range(500)))

    ready, everyone = 0, asyncio.Event()
    loop.run_until_complete(main())
    assert no_children()


@clause("subprocess.exit.many")
@pytest.mark.timeout(120)
def test_five_hundred_children_that_only_exit(loop):
    async def child():
        process = await asyncio.create_subprocess_exec("true")
        return await process.wait()

    async def main():
        return await asyncio.gather(*(child() for _ in range(500)))

    assert loop.run_until_complete(main()) == [0] * 500
    assert no_children()


@clause("subprocess.exit.at-once")
def test_an_exit_before_the_loop_looks_is_noticed(run):
    async def main():
        for _ in range(20):
            transport, protocol, finish = await start_gated("exit 5", stdout=None, stderr=None)
            finish()
            await protocol.lost.wait()
            assert transport.get_returncode() == 5

    run(main())


@clause("subprocess.exit.at-once")
def test_an_exit_that_the_loop_sleeps_through_is_noticed(run):
    async def main():
        transport, protocol, finish = await start_gated("exit 5")
        waiting = asyncio.create_task(protocol.lost.wait())
        await asyncio.sleep(0)
        finish()
        await waiting
        return transport.get_returncode(), protocol.names()[-1]

    assert run(main()) == (5, "lost")


@clause("subprocess.exit.at-once")
def test_an_exit_before_wait_is_noticed(run):
    async def main():
        transport, protocol = await start("exit 5", stdin=None, stdout=None, stderr=None)
        await protocol.lost.wait()
        assert transport.get_returncode() == 5
        process = await sh("exit 6", stdout=PIPE)
        assert await process.stdout.read() == b""
        while process.returncode is None:
            await asyncio.sleep(0.001)
        return await process.wait()

    assert run(main()) == 6


@clause("subprocess.threads.any")
def test_a_loop_in_another_thread_runs_children(new_loop):
    def elsewhere():
        loop = new_loop()
        return loop.run_until_complete(asyncio.wait_for(output("cat; echo $1", "end", stdin=DEVNULL), 10))

    assert peers.thread(elsewhere).result() == "end"


@clause("subprocess.threads.any")
def test_loops_in_several_threads_run_children_at_once(new_loop):
    def elsewhere(n):
        async def main():
            found = []
            for m in range(10):
                process = await sh(f"cat; exit {n}", stdin=PIPE, stdout=PIPE)
                out, _ = await process.communicate(b"%d %d" % (n, m))
                found.append((out, process.returncode))
            return found

        return new_loop().run_until_complete(main())

    threads = [peers.thread(elsewhere, n) for n in range(4)]
    here = elsewhere(4)
    found = [*(thread.result() for thread in threads), here]
    assert found == [[(b"%d %d" % (n, m), n) for m in range(10)] for n in range(5)]
    assert no_children()


@clause("subprocess.threads.no-warning")
def test_running_a_child_warns_of_nothing(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(output("echo out")) == "out"
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@clause("subprocess.debug.works")
def test_debug_mode_changes_nothing(loop, run):
    loop.set_debug(True)

    async def main():
        process = await sh("cat; echo err >&2; exit 2", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        out = await process.communicate(b"in")
        transport, protocol = await start("exec sleep 3600")
        transport.close()
        await protocol.lost.wait()
        return out, process.returncode, transport.get_returncode()

    assert run(main()) == ((b"in", b"err\n"), 2, -signal.SIGKILL)


@clause("subprocess.exit.sigchld-ignored")
@pytest.mark.parametrize("streams", ["pipes", "none"])
def test_a_child_of_a_process_that_ignores_sigchld_is_reported_to_have_exited(run, saw, streams):
    """The kernel does not keep the status; what the loop says in its place is not the clause's."""

    async def main():
        options = {} if streams == "pipes" else {"stdout": None, "stderr": None}
        transport, protocol, finish = await start_gated("exit 3", **options)
        finish()
        await protocol.lost.wait()
        return transport.get_returncode(), "exited" in protocol.names()

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        code, exited = run(main())
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert exited
    assert code in (3, 255)
    saw("subprocess.exit.sigchld-ignored", "255" if code == 255 else "the child's own code")


@clause("subprocess.exit.own-sigchld-handler")
@pytest.mark.parametrize("by", ["signal.signal", "add_signal_handler"])
def test_a_handler_for_sigchld_is_called_and_children_are_reported(loop, run, by):
    async def main():
        called = asyncio.Event()
        if by == "signal.signal":
            signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(called.set))
        else:
            loop.add_signal_handler(signal.SIGCHLD, called.set)
        process = await sh("exit 3")
        code = await process.wait()
        await called.wait()
        if by == "add_signal_handler":
            loop.remove_signal_handler(signal.SIGCHLD)
        return code

    before = signal.getsignal(signal.SIGCHLD)
    try:
        assert run(main()) == 3
    finally:
        signal.signal(signal.SIGCHLD, before)


@clause("subprocess.exit.wakeup-fd-left-alone")
def test_children_leave_a_wakeup_descriptor_of_the_program_alone(run):
    def current():
        fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(fd)
        return fd

    async def main():
        seen = []
        for _ in range(2):
            process = await sh("read line", stdin=PIPE)
            seen.append(current())
            process.stdin.close()
            await process.wait()
            seen.append(current())
        return seen

    waking, woken = socket.socketpair()
    with waking, woken:
        waking.setblocking(False)
        before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            assert set(run(main())) == {waking.fileno()}
        finally:
            signal.set_wakeup_fd(before)
