"""Loops with one defect each in pipes, in what streams rest on, or in `sock_*`: the standard library's, broken."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket

from spec._meta.parts import ReadPipe, Stream, WithPipes, WithStream, WritePipe
from spec._meta.patience import Hang


class SpecClosesRefused(WithPipes):
    """Closes a file that is no pipe."""

    async def connect_read_pipe(self, factory, pipe):
        try:
            return await super().connect_read_pipe(factory, pipe)
        except ValueError:
            pipe.close()
            raise


class SpecLeavesBlocking(WithPipes):
    """Leaves a pipe blocking."""

    async def connect_write_pipe(self, factory, pipe):
        made = await super().connect_write_pipe(factory, pipe)
        os.set_blocking(pipe.fileno(), True)
        return made


class SpecClosesForFactory(WithPipes):
    """Closes a pipe whose protocol factory raises."""

    async def connect_read_pipe(self, factory, pipe):
        try:
            protocol = factory()
        except Exception:
            pipe.close()
            raise
        return await super().connect_read_pipe(lambda: protocol, pipe)


class SpecEndsInline(WithPipes):
    """Calls connection_lost() from within close()."""

    class reading(ReadPipe):  # noqa: N801
        def _close(self, exc):
            self._closing = True
            self._loop._remove_reader(self._fileno)
            self._call_connection_lost(exc)


class SpecBreaksMutely(WithPipes):
    """Tells nobody that a pipe broke with data queued."""

    class writing(WritePipe):  # noqa: N801
        def _read_ready(self):
            self._buffer.clear()
            self._close()


class SpecReportsBroken(WithPipes):
    """Reports a broken pipe to the exception handler."""

    class writing(WritePipe):  # noqa: N801
        def _fatal_error(self, exc, message="Fatal error on pipe transport"):
            self._loop.call_exception_handler({"message": message, "exception": exc})
            self._close(exc)


class SpecEofInTurn(WithPipes):
    """Ends a pipe for an exception of data_received()."""

    class reading(ReadPipe):  # noqa: N801
        def _read_ready(self):
            try:
                super()._read_ready()
            except Exception as error:
                self._fatal_error(error)


class SpecNeverResumes(WithStream):
    """Does not read again once it was paused."""

    class stream(Stream):  # noqa: N801
        def resume_reading(self):
            return


class SpecResumesEmpty(WithStream):
    """Resumes a protocol when nothing at all is queued."""

    class stream(Stream):  # noqa: N801
        def _maybe_resume_protocol(self):
            if not self._buffer:
                super()._maybe_resume_protocol()


class SpecAbortsMutely(WithStream):
    """Does not call connection_lost() when it is aborted."""

    class stream(Stream):  # noqa: N801
        def abort(self):
            self._protocol_connected = False
            super().abort()


class SpecNeverClosing(WithStream):
    """Does not say that it is closing."""

    class stream(Stream):  # noqa: N801
        def is_closing(self):
            return self._sock is None


class SpecNoAddresses(WithStream):
    """Knows no address of its peer."""

    class stream(Stream):  # noqa: N801
        def get_extra_info(self, name, default=None):
            return default if name == "peername" else super().get_extra_info(name, default)


class SpecResetIsEnd(WithStream):
    """Takes a reset for the end of the stream."""

    class stream(Stream):  # noqa: N801
        def _fatal_error(self, exc, message="Fatal error on transport"):
            if isinstance(exc, ConnectionResetError):
                self._read_ready__on_eof()
                self.close()
            else:
                super()._fatal_error(exc, message)


class SpecCorks(WithStream):
    """Sends nothing before there are 64 KiB or the transport is closed."""

    class stream(Stream):  # noqa: N801
        held = b""

        def write(self, data):
            self.held += bytes(data)
            if len(self.held) >= 1 << 16:
                self._flush()

        def close(self):
            self._flush()
            super().close()

        def write_eof(self):
            self._flush()
            super().write_eof()

        def _flush(self):
            held, self.held = self.held, b""
            super().write(held)


class SpecEofTwice(WithStream):
    """Refuses a second write_eof()."""

    class stream(Stream):  # noqa: N801
        def write_eof(self):
            if self._eof:
                raise RuntimeError("write_eof() was called before")
            super().write_eof()


class SpecTakesMore(asyncio.SelectorEventLoop):
    """Receives more than it was asked for, and gives that much of it."""

    async def sock_recv(self, sock, n):
        return (await super().sock_recv(sock, 2 * n))[:n]


class SpecGivesWay(asyncio.SelectorEventLoop):
    """Lets others run before it tries to receive."""

    async def sock_recv(self, sock, n):
        await asyncio.sleep(0)
        return await super().sock_recv(sock, n)


class SpecAcceptsBlocking(asyncio.SelectorEventLoop):
    """Gives connections that block."""

    async def sock_accept(self, sock):
        conn, address = await super().sock_accept(sock)
        conn.setblocking(True)
        return conn, address


class SpecWholeBuffer(asyncio.SelectorEventLoop):
    """Fills the buffer, whatever it was asked for."""

    async def sock_recvfrom_into(self, sock, buf, nbytes=0):
        return await super().sock_recvfrom_into(sock, buf)


class SpecSkipsEmpty(asyncio.SelectorEventLoop):
    """Sends no datagram of nothing."""

    async def sock_sendto(self, sock, data, address):
        return await super().sock_sendto(sock, data, address) if len(data) else None


class SpecNumbersOnly(asyncio.SelectorEventLoop):
    """Connects a socket to no name."""

    async def sock_connect(self, sock, address):
        if sock.family == socket.AF_INET:
            ipaddress.ip_address(address[0])
        await super().sock_connect(sock, address)


class SpecLeavesFds(asyncio.SelectorEventLoop):
    """Leaves a descriptor behind for each receive that is cancelled."""

    async def sock_recv(self, sock, n):
        try:
            return await super().sock_recv(sock, n)
        except asyncio.CancelledError:
            os.dup(sock.fileno())
            raise


CONNECT = "pipes/test_connect.py::test_"
READING = "pipes/test_reading.py::test_"
WRITING = "pipes/test_writing.py::test_"
STREAMS = "streams/test_writing.py::test_"
RECEIVING = "sockets/test_receiving.py::test_"
DATAGRAMS = "sockets/test_datagrams.py::test_"
CONNECTING = "sockets/test_connecting.py::test_"
CAUGHT_BY = {
    "SpecClosesRefused": [CONNECT + "a_regular_file_is_refused_with_value_error_and_left_open[{}-read]"],
    "SpecLeavesBlocking": [CONNECT + "the_pipe_is_made_non_blocking[{}-write]"],
    "SpecClosesForFactory": [CONNECT + "what_the_factory_raises_is_raised_and_the_pipe_stays_open[{}-read]"],
    "SpecEndsInline": [READING + "close_leads_to_connection_lost_and_closes_the_pipe_afterwards[{}]"],
    "SpecBreaksMutely": [WRITING + "a_reader_that_goes_with_data_queued_is_a_broken_pipe[{}-False]"],
    "SpecReportsBroken": [WRITING + "writing_to_a_reader_that_has_gone_ends_the_transport_without_a_report[{}]"],
    "SpecEofInTurn": [READING + "a_transport_whose_data_received_raised_goes_on_reading[{}]"],
    "SpecNeverResumes": [
        Hang("streams/test_reading.py::test_over_twice_the_limit_reading_pauses_until_it_is_read[{}-tcp]")
    ],
    "SpecResumesEmpty": [
        "tcp/test_contract.py::TestConnected::test_resume_writing_does_not_wait_until_nothing_is_left[{}]"
    ],
    "SpecAbortsMutely": [Hang(STREAMS + "an_aborted_stream_wakes_those_who_drain[{}]")],
    "SpecNeverClosing": [STREAMS + "writing_and_draining_after_close_ends_without_another_await[{}]"],
    "SpecNoAddresses": [STREAMS + "the_writer_tells_of_its_socket[{}]"],
    "SpecResetIsEnd": ["streams/test_reading.py::test_a_cancelled_read_does_not_hide_the_reset[{}]"],
    "SpecCorks": [Hang(STREAMS + "a_write_is_sent_without_a_drain[{}-tcp]")],
    "SpecEofTwice": [STREAMS + "after_write_eof_a_write_raises[{}]"],
    "SpecTakesMore": [Hang(RECEIVING + "recv_returns_at_most_n_bytes_and_the_next_one_the_rest[{}-tcp]")],
    "SpecGivesWay": [RECEIVING + "what_can_be_done_at_once_lets_no_other_callback_run[{}-recv]"],
    "SpecAcceptsBlocking": [CONNECTING + "an_accepted_connection_is_a_socket_ready_for_use[{}]"],
    "SpecWholeBuffer": [DATAGRAMS + "recvfrom_into_receives_at_most_nbytes[{}-there]"],
    "SpecSkipsEmpty": [DATAGRAMS + "sendto_sends_one_datagram_and_returns_its_size[{}-b'']"],
    "SpecNumbersOnly": [CONNECTING + "connect_resolves_a_name[{}]"],
    "SpecLeavesFds": ["sockets/test_cancelling.py::test_a_receive_can_follow_a_cancelled_one_at_once[{}-recv]"],
}
HARMLESS = "sockets/test_sending.py::test_many_small_sends_arrive_in_order[{}]"
