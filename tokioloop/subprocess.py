"""Subprocesses: asyncio's transport over `subprocess.Popen`, and how a child's exit is noticed. A part of `TokioLoop`.

- The loop watches a pidfd of each child: from any thread, without a child watcher, without SIGCHLD, and without a look
  at children that are not its own. Where there is none to be had (an old kernel, a sandbox, no descriptors left), a
  thread waits for the child instead.
- The status is taken by the pidfd, and Popen is told at once. From then on the number may be another process's: nothing
  is sent to it and nobody waits for it any more. A signal goes through the pidfd, too.
- The status of a child that Popen has reaped (`poll()`, which a transport's `close()` calls) is Popen's. If somebody
  else has, it is 255, with a warning, as on stock asyncio.
- A loop that is closed lets go of its children, who live on; Popen reaps them when the next one is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import subprocess
import threading
from asyncio import base_subprocess
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as _Base
    from collections.abc import Callable
else:
    _Base = object

_STATUS_LOST = 255


class ProcessTransport(base_subprocess.BaseSubprocessTransport):
    """A child, its pipes and the watch for its exit."""

    _loop: Any
    _proc: Any
    _pid: int
    _pending_calls: Any
    _exit_waiters: Any
    _pidfd: int | None = None

    def _start(self, args: Any, shell: bool, stdin: Any, stdout: Any, stderr: Any, bufsize: int, **kwargs: Any) -> None:
        # By vfork(), as Popen does where it may.
        self._proc = subprocess.Popen(
            args, shell=shell, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **kwargs
        )

    async def _connect_pipes(self, waiter: asyncio.Future[Any] | None) -> None:
        await super()._connect_pipes(waiter)
        if self._pending_calls is not None:
            self._forget_pipes()

    def _forget_pipes(self) -> None:
        """End a child whose pipes could not be connected, and of which its protocol knows nothing.

        Stock asyncio before 3.14 waits for such pipes for ever.
        """
        files = (self._proc.stdin, self._proc.stdout, self._proc.stderr)
        for fd in [fd for fd, pipe in self._pipes.items() if pipe is None]:
            del self._pipes[fd]
            files[fd].close()
        self._pending_calls = None
        self._pipes_connected = True  # as far as they were: later CPythons ask, and would wake the waiters twice
        self._protocol = asyncio.SubprocessProtocol()
        self.close()
        if self._returncode is not None:
            self._try_finish()

    def close(self) -> None:
        """Kill the child and close its pipes; after its loop was closed, kill it."""
        if self._loop is None or not self._loop.is_closed():
            super().close()
            return
        # The transports of its pipes can schedule nothing any more. Stock asyncio passes them over since gh-114177.
        pipes, self._pipes = self._pipes, {}
        try:
            super().close()
        finally:
            self._pipes = pipes

    # ---- exit

    def watch(self) -> None:
        """Have the loop notice the exit. `RuntimeError` when it takes a thread and no more can be started."""
        try:
            self._pidfd = os.pidfd_open(self._pid)
            self._loop.add_reader(self._pidfd, self._exited)
        except (AttributeError, OSError):
            self.unwatch()
            name = f"tokioloop-waitpid-{self._pid}"
            threading.Thread(target=self._wait_in_thread, args=(self._loop,), name=name, daemon=True).start()
        else:
            self._loop._children.add(self)

    def unwatch(self) -> None:
        """Let go of the pidfd."""
        if self._pidfd is not None:
            self._loop._children.discard(self)
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _exited(self) -> None:
        assert self._pidfd is not None
        try:
            self._reap(_wait_by_pidfd, self._pidfd)
        finally:
            self.unwatch()
        self._loop.call_soon(self._process_exited, self._proc.returncode)

    def _process_exited(self, returncode: int) -> None:
        super()._process_exited(returncode)
        # Before 3.13.15 and 3.14.7, CPython has them wait for the end of the pipes, which a grandchild may keep open
        # (gh-119710).
        waiters = self._exit_waiters or ()
        if waiters:
            self._exit_waiters = []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(returncode)

    def _wait_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reap(_wait_by_number, self._pid)
        try:
            loop.call_soon_threadsafe(self._process_exited, self._proc.returncode)
        except RuntimeError:
            logger.warning("Loop %r that handles pid %r is closed", loop, self._pid)

    def _reap(self, wait: Callable[[int], int], number: int) -> None:
        """Take the status of the child, unless Popen has, and tell Popen."""
        # Popen in another thread, or in `close()`, takes the status and notes it under this lock.
        with self._proc._waitpid_lock:
            if self._proc.returncode is not None:
                return
            try:
                self._proc.returncode = wait(number)
            except ChildProcessError:
                self._proc.returncode = _STATUS_LOST
                logger.warning(
                    "child process pid %d exit status already read: will report returncode %d", self._pid, _STATUS_LOST
                )

    # ---- signals

    def send_signal(self, signal: int) -> None:
        """Send `signal` to the child; nothing where it has exited. `ProcessLookupError` once the transport is lost."""
        self._check_proc()
        if self._proc.returncode is not None:
            return
        # Reaped by somebody else, it is gone.
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd is not None:
                signals.pidfd_send_signal(self._pidfd, signal)
            else:
                os.kill(self._pid, signal)

    def terminate(self) -> None:
        """Send SIGTERM, as `send_signal`."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, as `send_signal`."""
        self.send_signal(signals.SIGKILL)


class SubprocessMixin(_Base):
    """Subprocesses: what `subprocess_exec` and `subprocess_shell` of `BaseEventLoop` ask for."""

    __slots__ = ()

    if TYPE_CHECKING:
        # In a slot of TokioLoop.
        _children: set[ProcessTransport]

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Any,
        shell: bool,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> ProcessTransport:
        waiter: asyncio.Future[None] = self.create_future()
        transport = ProcessTransport(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **kwargs
        )
        transport.watch()
        try:
            await waiter
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        return transport

    def _close_children(self) -> None:
        """Let go of the children that are alive."""
        for transport in list(self._children):
            transport.unwatch()


def _wait_by_pidfd(pidfd: int) -> int:
    """The return code of a child. `ChildProcessError` when somebody else has it."""
    status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert status is not None  # it is with WNOHANG only
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def _wait_by_number(pid: int) -> int:
    """The same, without a pidfd: blocks until the child has exited."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
