"""Loops with one defect each in their watchers, `sock_*`, pipes and servers: the standard library's, broken."""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import selectors

from spec._meta.parts import ReadPipe, WithPipes, WritePipe
from spec._meta.patience import Hang


class _EdgeSelector(getattr(selectors, "EpollSelector", object)):
    _EVENT_READ = select.EPOLLIN | select.EPOLLET
    _EVENT_WRITE = select.EPOLLOUT | select.EPOLLET


class SpecEdge(asyncio.SelectorEventLoop):
    """Watches edge-triggered: a callback that leaves data unread is not called again."""

    def __init__(self):
        super().__init__(_EdgeSelector())


class _LateSelector(selectors.DefaultSelector):
    """Leaves out looks that would not wait, up to 15 in a row."""

    skipped = 0

    def select(self, timeout=None):
        if timeout == 0 and self.skipped < 15:
            self.skipped += 1
            return []
        self.skipped = 0
        return super().select(timeout)


class SpecLate(asyncio.SelectorEventLoop):
    """Looks at I/O in every sixteenth turn only while callbacks are ready."""

    def __init__(self):
        super().__init__(_LateSelector())


class SpecEager(asyncio.SelectorEventLoop):
    """Calls a reader when it is added, ready or not."""

    def add_reader(self, fd, callback, *args):
        super().add_reader(fd, callback, *args)
        self.call_soon(callback, *args)


class SpecOverdue(asyncio.SelectorEventLoop):
    """Calls a watcher that was removed while it was due."""

    def _remove_reader(self, fd):
        key = None if self.is_closed() else self._selector.get_map().get(fd)
        if key is None:
            return False
        mask, (reader, writer) = key.events & ~selectors.EVENT_READ, key.data
        if mask:
            self._selector.modify(fd, mask, (None, writer))
        else:
            self._selector.unregister(fd)
        return reader is not None


class SpecOneWay(asyncio.SelectorEventLoop):
    """Removes both directions at once."""

    def remove_reader(self, fd):
        removed = super().remove_reader(fd)
        super().remove_writer(fd)
        return removed


class SpecTruncates(asyncio.SelectorEventLoop):
    """Receives 256 KiB at most, whatever it was asked for."""

    async def sock_recv(self, sock, n):
        return await super().sock_recv(sock, min(n, 1 << 18))


class SpecByNumber(asyncio.SelectorEventLoop):
    """Remembers by fd number that a receive found nothing, and then waits for an edge before it tries again."""

    def __init__(self):
        super().__init__()
        self._edges = select.epoll()
        self._empty = set()
        self._known = set()

    async def sock_recv(self, sock, n):
        fd = sock.fileno()
        if fd not in self._known:
            self._known.add(fd)
            self._edges.register(fd, select.EPOLLIN | select.EPOLLET)
        while True:
            if fd not in self._empty:
                try:
                    return sock.recv(n)
                except BlockingIOError:
                    self._empty.add(fd)
            while fd in self._empty:
                self._empty -= {found for found, _ in self._edges.poll(0)}
                await asyncio.sleep(0)

    def close(self):
        self._edges.close()
        super().close()


class SpecGreedyCancel(asyncio.SelectorEventLoop):
    """Goes on receiving for an operation that was cancelled."""

    def _sock_read_done(self, fd, fut, handle=None):
        if not fut.cancelled():
            super()._sock_read_done(fd, fut, handle)

    def _sock_recv(self, fut, sock, n):
        if fut.cancelled():
            sock.recv(n)
        else:
            super()._sock_recv(fut, sock, n)


class SpecShortSend(asyncio.SelectorEventLoop):
    """Takes what the socket took at once for everything."""

    async def sock_sendall(self, sock, data):
        try:
            sock.send(data)
        except BlockingIOError:
            await super().sock_sendall(sock, data)


class SpecAtOnce(asyncio.SelectorEventLoop):
    """Checks when an operation is called, not when it is awaited."""

    def sock_recv(self, sock, n):
        if sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        return super().sock_recv(sock, n)


class SpecKeeper(asyncio.SelectorEventLoop):
    """Keeps the buffers of its operations."""

    def __init__(self):
        super().__init__()
        self._kept = []

    async def sock_recv_into(self, sock, buf):
        self._kept.append(buf)
        return await super().sock_recv_into(sock, buf)


class SpecChainFirst(asyncio.SelectorEventLoop):
    """Runs a hundred rounds of callbacks for each look at the fds."""

    def _run_once(self):
        super()._run_once()
        for _ in range(100):
            if not self._ready or self._stopping:
                break
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()


class SpecUnawarePipe(asyncio.SelectorEventLoop):
    """Does not notice that nobody reads a pipe any more."""

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        transport = super()._make_write_pipe_transport(pipe, protocol, waiter, extra)
        self.call_soon(self._remove_reader, pipe.fileno())  # which the transport is about to add
        return transport


class _Discarding(WritePipe):
    def write_eof(self):
        if not self._closing:
            self.abort()


class SpecHastyPipe(WithPipes):
    """Discards what is queued for a pipe when the pipe is closed."""

    writing = _Discarding


class _Staying(ReadPipe):
    def _read_ready(self):
        data = os.read(self._fileno, self.max_size)
        if data:
            self._protocol.data_received(data)
            return
        self._loop._remove_reader(self._fileno)
        if not self._protocol.eof_received():
            self.close()


class SpecStayingPipe(WithPipes):
    """Lets eof_received() keep a pipe open, as on a socket."""

    reading = _Staying


class SpecSquatter(asyncio.SelectorEventLoop):
    """Removes whatever file is at the path of a Unix server."""

    async def create_unix_server(self, protocol_factory, path=None, **arguments):
        if path is not None and os.path.isfile(path):  # noqa: ASYNC240
            os.unlink(path)
        return await super().create_unix_server(protocol_factory, path, **arguments)


class SpecCommonContext(asyncio.SelectorEventLoop):
    """Accepts all connections in one context."""

    def __init__(self):
        super().__init__()
        self._common = contextvars.copy_context()

    def create_task(self, coro, **kwargs):
        if coro.__name__ == "_accept_connection2":
            kwargs["context"] = self._common
        return super().create_task(coro, **kwargs)


WATCHERS = "readers_writers/"
SOCKETS = "sockets/"
REUSE = SOCKETS + "test_reuse.py::"
PIPES = "pipes/"
CAUGHT_BY = {
    "SpecLate": [
        WATCHERS
        + "test_callbacks.py::test_a_reader_is_called_in_the_iteration_behind_the_one_that_made_it_ready[{}-itself-1]",
        SOCKETS
        + "test_receiving.py::test_a_waiting_operation_ends_in_the_second_iteration_behind_the_event[{}-1-recv]",
        "tcp/test_contract.py::TestConnected::test_what_arrives_is_there_two_turns_later_and_the_end_three[{}-7]",
        "tcp/test_echo.py::test_what_one_end_writes_the_other_end_has_two_turns_later[{}-7]",
        "tcp/test_create_server.py::test_a_client_that_waited_has_its_transport_three_turns_later[{}]",
        "tcp/test_create_server.py::test_what_clients_did_between_runs_is_found_by_the_first_turns_of_the_next[{}]",
        "udp/test_datagrams.py::test_a_datagram_is_received_in_the_turn_behind_the_one_it_came_in[{}-7]",
        "pipes/test_reading.py::test_data_that_waited_is_received_in_the_first_turn[{}-7]",
        "pipes/test_reading.py::test_data_that_waited_outruns_a_close_by_the_end_of_an_older_connection[{}]",
    ],
    "SpecEdge": [
        WATCHERS + "test_readiness.py::test_a_reader_is_called_until_all_data_is_read[{}]",
        WATCHERS + "test_model.py::test_watchers_behave_like_the_model[{}]",
    ],
    "SpecEager": [
        WATCHERS + "test_readiness.py::test_a_reader_of_an_idle_listener_is_not_called_before_a_client_connects[{}]",
        WATCHERS + "test_model.py::test_watchers_behave_like_the_model[{}]",
    ],
    "SpecOverdue": [
        WATCHERS + "test_registration.py::test_of_two_ready_readers_that_remove_each_other_one_is_called[{}]",
    ],
    "SpecOneWay": [WATCHERS + "test_readiness.py::test_removing_one_direction_leaves_the_other[{}-reader]"],
    "SpecChainFirst": [
        WATCHERS + "test_callbacks.py::test_a_chain_that_never_ends_does_not_starve_a_ready_watcher[{}-tasks-reader]",
        SOCKETS + "test_together.py::test_a_chain_that_never_ends_does_not_starve_an_operation[{}-callbacks-recv]",
    ],
    "SpecTruncates": [SOCKETS + "test_receiving.py::test_recv_returns_a_large_message_whole[{}-datagram-False-300000]"],
    "SpecByNumber": [
        Hang(
            SOCKETS
            + "test_reuse.py::test_a_new_socket_that_has_data_at_once_is_read_though_the_old_one_was_drained[{}]"
        ),
    ],
    "SpecGreedyCancel": [
        Hang(SOCKETS + "test_cancelling.py::test_what_arrives_after_a_cancellation_is_for_the_next_receive[{}-1-recv]"),
        Hang(SOCKETS + "test_model.py::test_receives_behave_like_the_model[{}]"),
    ],
    "SpecShortSend": [
        SOCKETS + "test_sending.py::test_everything_is_sent_to_a_slow_reader[{}-8000000-tcp]",
        SOCKETS + "test_model.py::test_sends_behave_like_the_model[{}-unix]",
    ],
    "SpecAtOnce": [SOCKETS + "test_checks.py::test_the_socket_is_checked_when_the_operation_is_awaited[{}]"],
    "SpecUnawarePipe": [
        Hang(PIPES + "test_writing.py::test_a_reader_that_goes_is_noticed_though_nothing_is_written[{}-pipe]"),
        Hang(PIPES + "test_writing.py::test_a_pipe_that_nobody_reads_from_the_start_ends_the_transport[{}]"),
    ],
    "SpecHastyPipe": [
        PIPES + "test_writing.py::test_write_eof_sends_what_is_queued_and_closes_the_transport[{}-12582912]",
        PIPES + "test_contract.py::TestWriting::test_queued_data_is_sent_before_connection_lost[{}]",
    ],
    "SpecStayingPipe": [
        Hang(PIPES + "test_reading.py::test_the_end_closes_the_transport_whatever_eof_received_answers[{}-True]"),
    ],
    "SpecSquatter": [
        "unix/test_server.py::test_another_file_at_the_path_is_left_alone_and_raises_os_error[{}-file]",
    ],
    "SpecCommonContext": [
        "tcp/test_server.py::test_what_the_factory_sets_is_seen_by_the_callbacks_of_its_connection_only[{}]",
    ],
    "SpecKeeper": [SOCKETS + "test_checks.py::test_the_loop_keeps_neither_the_socket_nor_the_buffer[{}-waited]"],
}
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"
