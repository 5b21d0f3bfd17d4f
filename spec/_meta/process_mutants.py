"""Loops with one defect each in signals or subprocesses: the standard library's, broken."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading

from spec._meta.parts import Child, WithChildren
from spec._meta.patience import Hang


class SpecForgetful(asyncio.SelectorEventLoop):
    """Leaves its signal handlers set when it is closed."""

    def close(self):
        self._signal_handlers.clear()
        super().close()


class SpecRepeats(asyncio.SelectorEventLoop):
    """Calls a signal's handler twice."""

    def _handle_signal(self, sig):
        super()._handle_signal(sig)
        super()._handle_signal(sig)


class SpecCoalesces(asyncio.SelectorEventLoop):
    """Calls a signal's handler once for all that came, lowest number first."""

    def _process_self_data(self, data):
        super()._process_self_data(bytes(sorted(set(data))))


class SpecInterrupts(asyncio.SelectorEventLoop):
    """Calls handlers wherever the interpreter is, as signal.signal() does."""

    def add_signal_handler(self, sig, callback, *args):
        super().add_signal_handler(sig, callback, *args)
        signal.signal(sig, lambda _number, _frame: callback(*args))

    def _handle_signal(self, sig):
        pass


class SpecDeaf(asyncio.SelectorEventLoop):
    """Is woken only by signals that its own thread gets: the interpreter has no descriptor to write to."""

    def add_signal_handler(self, sig, callback, *args):
        super().add_signal_handler(sig, callback, *args)
        signal.set_wakeup_fd(-1)
        signal.signal(sig, lambda _number, _frame: self.call_soon(callback, *args))


class SpecGrabs(asyncio.SelectorEventLoop):
    """Sets its own wake-up descriptor whenever it runs in the main thread."""

    def run_forever(self):
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        super().run_forever()


class SpecUnmindful(asyncio.SelectorEventLoop):
    """Takes the handlers of all signals away with that of one."""

    def remove_signal_handler(self, sig):
        found = super().remove_signal_handler(sig)
        for other in list(self._signal_handlers):
            super().remove_signal_handler(other)
        return found


class SpecBreaksCalls(asyncio.SelectorEventLoop):
    """Has system calls fail that a signal interrupts."""

    def add_signal_handler(self, sig, callback, *args):
        super().add_signal_handler(sig, callback, *args)
        signal.siginterrupt(sig, True)


class SpecAbandons(WithChildren):
    """Lets a child live whose start was cancelled."""

    async def give_up(self, made):
        made._closed = True


class SpecReapsAll(WithChildren):
    """Takes the status of every child, whose ever it is."""

    def wait_for(self, made):
        while True:
            found, status = os.waitpid(-1, 0)
            if found == made.get_pid():
                return os.waitstatus_to_exitcode(status)


class SpecMistakes(WithChildren):
    """Takes a signal's number for an exit status."""

    def wait_for(self, made):
        return abs(super().wait_for(made))


class SpecStopped(WithChildren):
    """Takes a child that was stopped for one that has exited."""

    def wait_for(self, made):
        _, status = os.waitpid(made.get_pid(), os.WUNTRACED)
        return 0 if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


class SpecPatient(WithChildren):
    """Waits for the end of the pipes, too, where a process is waited for."""

    class child(Child):  # noqa: N801
        async def _wait(self):
            code = await super()._wait()
            while not self._finished:
                await asyncio.sleep(0)
            return code


class SpecHastyEnd(WithChildren):
    """Calls connection_lost() when the child has exited, pipes or no pipes."""

    class child(Child):  # noqa: N801
        def _process_exited(self, returncode):
            self._pipes = {}
            super()._process_exited(returncode)

        def _try_finish(self):
            if not self._finished:
                super()._try_finish()

        def _pipe_connection_lost(self, fd, exc):
            if self._protocol is not None:
                super()._pipe_connection_lost(fd, exc)

        def _pipe_data_received(self, fd, data):
            if self._protocol is not None:
                super()._pipe_data_received(fd, data)


class SpecOneWaiter(WithChildren):
    """Wakes only the task that waited first."""

    class child(Child):  # noqa: N801
        def _call_connection_lost(self, exc):
            del self._exit_waiters[1:]
            super()._call_connection_lost(exc)


class SpecSpares(WithChildren):
    """Does not kill the child when its transport is closed."""

    class child(Child):  # noqa: N801
        def close(self):
            self._closed = True
            for pipe in self._pipes.values():
                if pipe is not None:
                    pipe.pipe.close()


class SpecStaysOpen(WithChildren):
    """Hands its descriptors on to the child."""

    class child(Child):  # noqa: N801
        def _start(self, args, shell, stdin, stdout, stderr, bufsize, **kwargs):
            before = [fd for fd in range(3, 64) if self._is_closed_to_children(fd)]
            for fd in before:
                os.set_inheritable(fd, True)
            try:
                options = {**kwargs, "close_fds": False, "pass_fds": ()}
                super()._start(args, shell, stdin, stdout, stderr, bufsize, **options)
            finally:
                for fd in before:
                    os.set_inheritable(fd, False)

        @staticmethod
        def _is_closed_to_children(fd):
            try:
                return not os.get_inheritable(fd)
            except OSError:
                return False


class SpecLenient(WithChildren):
    """Ignores what it does not know."""

    async def subprocess_exec(self, protocol_factory, *args, text=None, encoding=None, **kwargs):
        return await super().subprocess_exec(protocol_factory, *args, **kwargs)


class SpecLeaky(WithChildren):
    """Keeps a descriptor for each child."""

    def wait_for(self, made):
        os.dup(0)
        return super().wait_for(made)


class SpecBlindShot(WithChildren):
    """Raises ProcessLookupError as soon as the child has exited."""

    class child(Child):  # noqa: N801
        def send_signal(self, signal):
            if self._proc is None or self._returncode is not None:
                raise ProcessLookupError
            super().send_signal(signal)

        def kill(self):
            self.send_signal(signal.SIGKILL)


class SpecMerges(WithChildren):
    """Sends standard error the way of standard output."""

    class child(Child):  # noqa: N801
        def _start(self, args, shell, stdin, stdout, stderr, bufsize, **kwargs):
            if stdout == stderr == subprocess.PIPE:
                self._pipes.pop(2)
                stderr = subprocess.STDOUT
            super()._start(args, shell, stdin, stdout, stderr, bufsize, **kwargs)


class SpecBreaksOnPipe(WithChildren):
    """Tells communicate() of a child that does not want its input by another exception."""

    class child(Child):  # noqa: N801
        def _pipe_connection_lost(self, fd, exc):
            if fd == 0 and exc is not None:
                exc = OSError("the pipe broke")
            super()._pipe_connection_lost(fd, exc)


HANDLERS = "signals/test_handlers.py::"
DELIVERY = "signals/test_delivery.py::"
REMOVING = "signals/test_removing.py::"
STARTING = "subprocess/test_starting.py::"
ARGUMENTS = "subprocess/test_arguments.py::"
STREAMS = "subprocess/test_streams.py::"
PROTOCOLS = "subprocess/test_protocols.py::"
EXIT = "subprocess/test_exit.py::"
KILLING = "subprocess/test_signals.py::"
TALKING = "subprocess/test_communicate.py::"
CLOSING = "subprocess/test_closing.py::"
CAUGHT_BY = {
    "SpecForgetful": [REMOVING + "test_closing_the_loop_gives_the_signals_back[{}]"],
    "SpecRepeats": [
        HANDLERS + "test_the_callback_gets_its_arguments_once_in_the_thread_of_the_loop[{}]",
        "signals/test_model.py::test_handlers_behave_like_the_model[{}]",
    ],
    "SpecCoalesces": [
        DELIVERY + "test_each_signal_received_is_a_call[{}]",
        DELIVERY + "test_callbacks_are_called_in_the_order_of_the_signals[{}]",
    ],
    "SpecInterrupts": [HANDLERS + "test_the_callback_waits_for_the_callback_that_runs[{}]"],
    "SpecDeaf": [
        Hang(DELIVERY + "test_a_signal_that_another_thread_gets_wakes_the_loop[{}]"),
        Hang(DELIVERY + "test_a_signal_that_the_main_thread_blocks_is_delivered[{}]"),
    ],
    "SpecGrabs": [REMOVING + "test_a_loop_without_handlers_leaves_the_programs_wakeup_fd[{}]"],
    "SpecUnmindful": [REMOVING + "test_removing_one_handler_leaves_the_other[{}]"],
    "SpecBreaksCalls": [DELIVERY + "test_a_read_that_a_signal_interrupts_goes_on[{}]"],
    "SpecAbandons": [STARTING + "test_cancelling_the_start_leaves_no_process[{}-2]"],
    "SpecReapsAll": [EXIT + "test_children_of_the_program_are_left_to_it[{}]"],
    "SpecMistakes": [
        EXIT + "test_the_code_of_a_signal_is_negative[{}-15]",
        KILLING + "test_a_signal_reaches_the_child[{}-kill-9]",
    ],
    "SpecStopped": [Hang(EXIT + "test_a_stopped_child_has_not_exited[{}]")],
    "SpecPatient": [Hang(EXIT + "test_wait_returns_while_another_process_has_the_pipe[{}-exits-after]")],
    "SpecHastyEnd": [PROTOCOLS + "test_an_exit_is_told_while_another_process_has_the_pipe[{}]"],
    "SpecOneWaiter": [
        Hang(EXIT + "test_every_waiter_and_every_later_one_gets_the_code[{}]"),
        Hang(EXIT + "test_a_cancelled_wait_disturbs_nobody[{}]"),
    ],
    "SpecSpares": [Hang(CLOSING + "test_closing_kills_the_child_and_closes_the_pipes[{}]")],
    "SpecStaysOpen": [
        ARGUMENTS + "test_the_child_has_the_descriptors_of_pass_fds_only[{}]",
        Hang(ARGUMENTS + "test_no_child_has_the_pipes_of_another[{}-True]"),
    ],
    "SpecLenient": [STARTING + "test_text_and_buffers_are_refused[{}-text]"],
    "SpecLeaky": [EXIT + "test_no_descriptor_and_no_thread_is_left[{}]"],
    "SpecBlindShot": [KILLING + "test_a_signal_while_another_process_has_the_pipes_is_no_error[{}-kill]"],
    "SpecMerges": [
        TALKING + "test_input_goes_in_and_both_outputs_come_out[{}]",
        STREAMS + "test_the_streams_are_pipes_by_default[{}-exec]",
    ],
    "SpecBreaksOnPipe": [TALKING + "test_a_child_that_does_not_want_its_input_is_no_error[{}-reads a bit]"],
}
HARMLESS = "signals/test_refusals.py::test_a_closed_loop_takes_no_handler[{}]"
