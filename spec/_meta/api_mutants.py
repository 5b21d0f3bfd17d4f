"""Loops with one defect each in sendfile, streams or executors: the standard library's, broken."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import selectors
import socket

from spec._meta.parts import Stream, WithStream
from spec._meta.patience import Hang


class SpecRewinder(asyncio.SelectorEventLoop):
    """Leaves the file at its start."""

    async def sock_sendfile(self, sock, file, *args, **kwargs):
        try:
            return await super().sock_sendfile(sock, file, *args, **kwargs)
        finally:
            file.seek(0)


class SpecReads(asyncio.SelectorEventLoop):
    """Has no sendfile(2): it reads and sends from wherever the file is, whatever `fallback` says."""

    async def sock_sendfile(self, sock, file, offset=0, count=None, *, fallback=True):
        self._check_sendfile_params(sock, file, offset, count)
        return await self._sock_sendfile_fallback(sock, file, offset, count)


class SpecUncounted(asyncio.SelectorEventLoop):
    """Sends to the end of the file, whatever the count."""

    async def _sock_sendfile_native(self, sock, file, offset, count):
        return await super()._sock_sendfile_native(sock, file, offset, None)


class SpecUnstoppable(asyncio.SelectorEventLoop):
    """Sends more of the file after it was cancelled."""

    async def _sock_sendfile_native(self, sock, file, offset, count):
        try:
            return await super()._sock_sendfile_native(sock, file, offset, count)
        except asyncio.CancelledError:
            self.create_task(self._send_more(sock, file))
            raise

    async def _send_more(self, sock, file):
        while sock.fileno() != -1:
            with contextlib.suppress(BlockingIOError):
                os.sendfile(sock.fileno(), file.fileno(), 0, 1000)
            await asyncio.sleep(0)


class SpecHoldsUp(asyncio.SelectorEventLoop):
    """Sends in the loop's thread, which waits for the peer."""

    async def _sock_sendfile_native(self, sock, file, offset, count):
        sock.setblocking(True)
        try:
            return sock.sendfile(file, offset, count)
        finally:
            sock.setblocking(False)


class SpecPushesIn(asyncio.SelectorEventLoop):
    """Does not wait for what was written before, and lets others write meanwhile."""

    async def _sendfile_native(self, transp, file, offset, count):
        del self._transports[transp._sock_fd]
        resume = transp.is_reading()
        transp.pause_reading()
        try:
            return await self.sock_sendfile(transp._sock, file, offset, count, fallback=False)
        finally:
            if resume:
                transp.resume_reading()
            self._transports[transp._sock_fd] = transp


class SpecStaysPaused(asyncio.SelectorEventLoop):
    """Does not go on reading after a sendfile."""

    async def _sendfile_native(self, transp, file, offset, count):
        try:
            return await super()._sendfile_native(transp, file, offset, count)
        finally:
            transp.pause_reading()


class SpecResumes(asyncio.SelectorEventLoop):
    """Reads after a sendfile, even where that was paused before."""

    async def _sendfile_native(self, transp, file, offset, count):
        try:
            return await super()._sendfile_native(transp, file, offset, count)
        finally:
            transp.resume_reading()


class SpecUnbounded(WithStream):
    """Never pauses a protocol."""

    class stream(Stream):  # noqa: N801
        def _maybe_pause_protocol(self):
            return


class SpecReadsOn(WithStream):
    """Does not stop reading."""

    class stream(Stream):  # noqa: N801
        def pause_reading(self):
            return


class SpecHidesErrors(WithStream):
    """Tells no protocol why its connection was lost."""

    class stream(Stream):  # noqa: N801
        def _call_connection_lost(self, _exc):
            super()._call_connection_lost(None)


class SpecHastyClose(WithStream):
    """close() is abort()."""

    class stream(Stream):  # noqa: N801
        def close(self):
            self.abort()


class SpecHastyEof(WithStream):
    """write_eof() ends the stream before what is buffered."""

    class stream(Stream):  # noqa: N801
        def write_eof(self):
            self._eof = True
            self._sock.shutdown(socket.SHUT_WR)


class SpecDropsByte(WithStream):
    """Drops the first byte of what it received while reading was paused."""

    class stream(Stream):  # noqa: N801
        def resume_reading(self):
            if self._paused and not self._closing:
                self._sock.recv(1)
            super().resume_reading()


class SpecHandsOnContext(asyncio.SelectorEventLoop):
    """Runs functions in the caller's context."""

    def run_in_executor(self, executor, func, *args):
        return super().run_in_executor(executor, contextvars.copy_context().run, func, *args)


class SpecLazy(asyncio.SelectorEventLoop):
    """Submits a function when its turn comes."""

    def run_in_executor(self, executor, func, *args):
        return self.create_task(self._later(executor, func, *args))

    async def _later(self, executor, func, *args):
        return await super().run_in_executor(executor, func, *args)


class SpecUncancelled(asyncio.SelectorEventLoop):
    """Does not tell the executor that a future was cancelled."""

    def run_in_executor(self, executor, func, *args):
        return asyncio.shield(super().run_in_executor(executor, func, *args))


class SpecSwallows(asyncio.SelectorEventLoop):
    """Turns every exception of a function into a RuntimeError."""

    def run_in_executor(self, executor, func, *args):
        @functools.wraps(func)
        def run(*args):
            try:
                return func(*args)
            except BaseException as error:
                raise RuntimeError("it failed") from error

        return super().run_in_executor(executor, run, *args)


class SpecImpatient(asyncio.SelectorEventLoop):
    """Does not wait for the threads of the default executor."""

    async def shutdown_default_executor(self, timeout=None):  # noqa: ASYNC109
        self._executor_shutdown_called = True
        if self._default_executor is not None:
            self._default_executor.shutdown(wait=False)


class _NoLook(selectors.DefaultSelector):
    def select(self, timeout=None):
        return [] if timeout == 0 else super().select(timeout)


class SpecKeepsTheGil(asyncio.SelectorEventLoop):
    """Makes no system call, and so lets no thread in, while callbacks are ready."""

    def __init__(self):
        super().__init__(_NoLook())


class SpecLosesCalls(asyncio.SelectorEventLoop):
    """Loses one in a thousand calls of other threads."""

    calls = 0

    def call_soon_threadsafe(self, callback, *args, context=None):
        self.calls += 1
        if self.calls % 1000 == 0:
            callback, args = int, ()
        return super().call_soon_threadsafe(callback, *args, context=context)


class SpecSleepsThrough(asyncio.SelectorEventLoop):
    """Is not woken by one in a hundred calls of other threads."""

    calls = 0

    def _write_to_self(self):
        self.calls += 1
        if self.calls % 100:
            super()._write_to_self()


FILES = "sendfile/test_files.py::"
SENDING = "sendfile/test_sending.py::"
TRANSPORTS = "sendfile/test_transports.py::"
READING = "streams/test_reading.py::"
WRITING = "streams/test_writing.py::"
RUNNING = "executors/test_running.py::"
ENDING = "executors/test_ending.py::"
THREADS = "executors/test_threads.py::"
CAUGHT_BY = {
    "SpecRewinder": [
        FILES + "test_a_file_is_sent_to_its_end_and_the_number_of_its_bytes_returned[{}-70000-tcp-sendfile]",
        FILES + "test_after_an_error_the_position_tells_how_much_was_sent[{}-tcp-sock_sendfile]",
    ],
    "SpecReads": [
        FILES + "test_offset_zero_is_the_start_of_the_file_wherever_its_position_is[{}-sock_sendfile]",
        FILES + "test_without_fallback_what_is_no_regular_file_is_refused[{}-sock_sendfile]",
    ],
    "SpecUncounted": [
        Hang(FILES + "test_offset_and_count_say_which_part_is_sent[{}-1000-70000-70000-sendfile]"),
        FILES + "test_any_part_of_any_file_is_the_slice_of_its_content[{}]",
    ],
    "SpecUnstoppable": [
        SENDING + "test_what_a_cancelled_sendfile_sent_is_a_prefix_and_the_next_write_follows_it[{}-tcp-sendfile]",
        SENDING + "test_a_second_sendfile_follows_a_cancelled_one[{}-sock_sendfile]",
    ],
    "SpecHoldsUp": [
        Hang(SENDING + "test_it_waits_for_a_peer_that_does_not_read_while_the_loop_goes_on[{}-tcp-sock_sendfile]"),
        Hang(SENDING + "test_other_callbacks_run_while_a_fast_peer_reads[{}-sock_sendfile]"),
    ],
    "SpecPushesIn": [
        Hang(SENDING + "test_the_file_comes_between_what_is_written_before_and_after[{}-tcp-sendfile]"),
        Hang(TRANSPORTS + "test_what_is_written_meanwhile_is_refused_or_follows_the_file[{}-write]"),
    ],
    "SpecStaysPaused": [TRANSPORTS + "test_the_protocol_gets_what_the_peer_sent_meanwhile[{}-file]"],
    "SpecResumes": [TRANSPORTS + "test_a_transport_whose_reading_is_paused_stays_paused[{}-file]"],
    "SpecUnbounded": [
        WRITING + "test_drain_waits_down_to_the_low_mark[{}-tcp]",
        WRITING + "test_several_tasks_drain_at_once[{}-unix]",
    ],
    "SpecReadsOn": [Hang(READING + "test_over_twice_the_limit_reading_pauses_until_it_is_read[{}-tcp]")],
    "SpecHidesErrors": [
        READING + "test_a_waiting_read_raises_the_reset_and_so_does_every_later_one[{}-readline]",
        WRITING + "test_wait_closed_raises_what_ended_the_connection[{}]",
    ],
    "SpecHastyClose": [WRITING + "test_wait_closed_returns_when_all_was_sent_and_the_socket_is_closed[{}-tcp]"],
    "SpecHastyEof": [
        WRITING + "test_write_eof_ends_the_writing_half_behind_the_data_and_reading_goes_on[{}-tcp]",
    ],
    "SpecDropsByte": [
        READING + "test_readexactly_waits_for_all_of_it[{}-tcp]",
        READING + "test_read_without_a_number_returns_all_up_to_the_end[{}-args0-unix]",
    ],
    "SpecHandsOnContext": [RUNNING + "test_run_in_executor_does_not_hand_on_the_context[{}]"],
    "SpecLazy": [Hang(RUNNING + "test_the_function_is_submitted_at_once_and_a_future_of_the_loop_returned[{}]")],
    "SpecUncancelled": [RUNNING + "test_a_function_that_is_cancelled_before_it_begins_never_runs[{}]"],
    "SpecSwallows": [
        RUNNING + "test_the_exception_itself_is_raised_where_it_is_awaited[{}]",
        RUNNING + "test_base_exceptions_reach_who_awaits_and_the_threads_live_on[{}-Strange]",
    ],
    "SpecImpatient": [
        ENDING + "test_the_loop_goes_on_while_the_default_executor_is_shut_down[{}]",
        ENDING + "test_the_end_of_a_run_waits_for_the_threads[{}]",
    ],
    "SpecLosesCalls": [Hang(THREADS + "test_thousands_of_calls_from_many_threads_are_all_made[{}]")],
    "SpecKeepsTheGil": [RUNNING + "test_a_thread_gets_on_beside_a_chain_of_callbacks_that_never_ends[{}]"],
    "SpecSleepsThrough": [
        Hang(RUNNING + "test_a_result_wakes_an_idle_loop[{}]"),
        Hang(THREADS + "test_a_call_that_comes_as_the_loop_goes_to_sleep_wakes_it[{}]"),
    ],
}
HARMLESS = READING + "test_readexactly_of_a_negative_number_raises[{}]"
