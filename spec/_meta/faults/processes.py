"""Whole loops that are wrong about signals, children and pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading

from spec._meta.parts import Child, ReadPipe, WithChildren, WithPipes


class SpecMissesEarlySignals(asyncio.SelectorEventLoop):
    """Does not call the handler of a signal that came between two runs.

    Stands for loops that empty their wake-up descriptor when a run begins.
    """

    def run_forever(self):
        if not self.is_running() and not self.is_closed():
            with contextlib.suppress(BlockingIOError):
                self._ssock.recv(4096)
        super().run_forever()


class SpecHandlesInTurn(asyncio.SelectorEventLoop):
    """Calls the handlers of signals by their numbers.

    Stands for loops that keep a set of the signals that are pending.
    """

    def _process_self_data(self, data):
        super()._process_self_data(bytes(sorted(data)))


class SpecTakesCtrlC(asyncio.SelectorEventLoop):
    """Ends its run by Ctrl-C without KeyboardInterrupt.

    Stands for loops that have a handler of their own for SIGINT.
    """

    def run_forever(self):
        if threading.current_thread() is not threading.main_thread():
            super().run_forever()
            return
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda *_: self.call_soon_threadsafe(self.stop))
        try:
            super().run_forever()
        finally:
            if before is signal.default_int_handler:
                signal.signal(signal.SIGINT, before)


class SpecLeavesZombies(WithChildren):
    """Does not wait for a child that its close() has killed.

    Stands for loops that forget a child with its transport.
    """

    def wait_for(self, made):
        os.waitid(os.P_PID, made.get_pid(), os.WEXITED | os.WNOWAIT)
        if made._closed:
            return -signal.SIGKILL
        return super().wait_for(made)


class SpecOneChildPerSignal(WithChildren):
    """Waits for one child whenever SIGCHLD comes.

    Stands for loops that count on a signal for each child, though pending signals of one kind are one.
    """

    def watch(self, made):
        if not hasattr(self, "_children"):
            self._children = {}
            self.add_signal_handler(signal.SIGCHLD, self._reap)
        self._children[made.get_pid()] = made
        self._reap()

    def _reap(self):
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(-1, os.WNOHANG)
            made = self._children.pop(pid, None)
            if made is not None:
                self.call_soon(made._process_exited, os.waitstatus_to_exitcode(status))


class SpecLeavesSignalsIgnored(WithChildren):
    """Starts children that ignore what Python ignores.

    Stands for loops that start children by posix_spawn() or uv_spawn() and leave the signals alone.
    """

    async def _make_subprocess_transport(self, *args, **options):
        return await super()._make_subprocess_transport(*args, **{"restore_signals": False, **options})


class SpecTakesEndForExit(WithChildren):
    """Kills a child whose standard output has ended.

    Stands for loops that learn of an exit by the end of a pipe.
    """

    class child(Child):  # noqa: N801
        def _pipe_connection_lost(self, fd, exc):
            super()._pipe_connection_lost(fd, exc)
            if fd == 1 and self._proc is not None and self._returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)


class SpecKillsByNumber(WithChildren):
    """Sends a signal to the number of a child, whoever has that by now.

    Stands for loops that kill by number and not by Popen object or pidfd.
    """

    class child(Child):  # noqa: N801
        def send_signal(self, signal):
            os.kill(self._pid, signal)

        def terminate(self):
            self.send_signal(signal.SIGTERM)

        def kill(self):
            self.send_signal(signal.SIGKILL)


class SpecBlocksOnPipe(asyncio.SelectorEventLoop):
    """Writes to a pipe that blocks.

    Stands for loops that leave a pipe as it was given to them.
    """

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        transport = super()._make_write_pipe_transport(pipe, protocol, waiter, extra)
        os.set_blocking(pipe.fileno(), True)
        return transport


class SpecDiesOfPipes(asyncio.SelectorEventLoop):
    """Ends the process when it writes to a pipe that nobody reads.

    Stands for extensions that restore the default action of SIGPIPE.
    """

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return super()._make_write_pipe_transport(pipe, protocol, waiter, extra)


class _Hasty(ReadPipe):
    def _read_ready(self):
        poll = select.poll()
        poll.register(self._fileno, select.POLLIN)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            self._closing = True
            self._loop._remove_reader(self._fileno)
            self._loop.call_soon(self._protocol.eof_received)
            self._loop.call_soon(self._call_connection_lost, None)
        else:
            super()._read_ready()


class SpecHangsUpFirst(WithPipes):
    """Ends a pipe whose writers have gone, though there is something in it.

    Stands for loops that look at EPOLLHUP before EPOLLIN: a pipe reports both.
    """

    reading = _Hasty
