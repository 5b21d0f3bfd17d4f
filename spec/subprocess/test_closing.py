"""Closing a transport, and a loop, with a child."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import warnings

import pytest

from .._kit import clause
from .helpers import descriptors, no_children, output, reap, reaped, start, start_gated, until_zombie


@clause("subprocess.close.kills")
def test_closing_kills_the_child_and_closes_the_pipes(run):
    async def main():
        transport, protocol = await start("exec sleep 3600")
        transport.close()
        assert transport.is_closing()
        transport.close()
        await protocol.lost.wait()
        transport.close()
        assert protocol.events[-1] == ("lost", None)
        assert protocol.names().count("closed") == 3
        return transport.get_returncode()

    assert run(main()) == -signal.SIGKILL


@clause("subprocess.close.kills")
def test_closing_does_not_wait_for_another_process_that_has_the_pipes(run):
    async def main():
        transport, protocol = await start("sleep 3600 & echo ready; wait", start_new_session=True)
        await protocol.until(1, b"ready")
        transport.close()
        await protocol.lost.wait()
        os.killpg(transport.get_pid(), signal.SIGKILL)
        return transport.get_returncode()

    assert run(main()) == -signal.SIGKILL


@clause("subprocess.close.kills")
def test_nothing_is_left_after_closing(run):
    async def main():
        for _ in range(5):
            transport, protocol = await start("exec sleep 3600")
            transport.close()
            await protocol.lost.wait()
        for _ in range(3):
            await asyncio.sleep(0)

    run(main())
    before = descriptors()
    run(main())
    gc.collect()
    assert descriptors() == before
    assert no_children()


@clause("subprocess.close.exited")
def test_closing_after_the_exit_is_no_error(run):
    async def main():
        transport, protocol = await start("exit 3")
        await protocol.lost.wait()
        transport.close()
        transport.close()
        return transport.get_returncode(), protocol.names().count("lost")

    assert run(main()) == (3, 1)


@clause("subprocess.close.exited")
def test_closing_before_the_loop_knows_of_the_exit_is_no_error(run, saw):
    async def main():
        transport, protocol, finish = await start_gated("exit 3")
        finish()
        transport.close()
        await protocol.lost.wait()
        return transport.get_returncode(), protocol.names()

    code, names = run(main())
    # close() may have taken the status, which is then read a second time.
    assert code in (3, 255)
    own = "its own return code"
    saw("subprocess.close.exited", own if code == 3 else "255, where the status was taken on the way")
    assert names[-1] == "lost" and names.count("exited") == 1
    assert no_children()


@clause("subprocess.close.exited")
def test_closing_in_process_exited_is_no_error(loop, run):
    async def main():
        transport, protocol = await start("exit 3")
        tell = protocol.process_exited
        protocol.process_exited = lambda: (tell(), transport.close())
        await protocol.lost.wait()
        return transport.get_returncode()

    assert run(main()) == 3


@clause("subprocess.close.loop-with-child")
@pytest.mark.filterwarnings("ignore")
def test_a_loop_is_closed_with_a_child_alive(new_loop):
    loop = new_loop()
    transport, _ = loop.run_until_complete(start("exec sleep 3600", stdin=None, stdout=None, stderr=None))
    loop.close()
    pid = transport.get_pid()
    os.kill(pid, 0)
    assert not reaped(pid)
    os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):  # a thread of the loop may have waited, too
        assert reap(pid) == -signal.SIGTERM
    transport.get_extra_info("subprocess").returncode = -signal.SIGTERM
    assert new_loop().run_until_complete(output("echo another loop")) == "another loop"


@clause("subprocess.close.loop-with-child")
@pytest.mark.filterwarnings("ignore")
def test_a_child_of_a_closed_loop_is_reaped_by_the_next_one_started(new_loop):
    loop = new_loop()
    transport, _ = loop.run_until_complete(start("exec sleep 3600", stdin=None, stdout=None, stderr=None))
    pid = transport.get_pid()
    loop.close()
    del loop, transport, _
    gc.collect()
    # Killed when its transport went, or running on.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until_zombie(pid)
    other = new_loop()
    assert other.run_until_complete(output("echo another loop")) == "another loop"
    assert reaped(pid)


@clause("subprocess.close.unclosed-warns")
def test_a_transport_let_go_of_unclosed_warns(loop):
    async def main():
        _, protocol = await start("exit 0", stdin=None, stdout=None, stderr=None)
        await protocol.lost.wait()
        protocol.events.clear()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(main())
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
