"""Loops with one defect each in their TCP transports: the standard library's, broken."""

from __future__ import annotations

import contextvars
import socket

from spec._meta.parts import Stream, WithStream
from spec._meta.patience import Hang


class SpecLostInline(WithStream):
    """Calls connection_lost() from within close() where nothing is queued."""

    class stream(Stream):  # noqa: N801
        def close(self):
            if self._closing or self._buffer:
                super().close()
                return
            self._closing = True
            self._conn_lost += 1
            self._loop._remove_reader(self._sock_fd)
            self._call_connection_lost(None)


class SpecNagle(WithStream):
    """Leaves Nagle's algorithm on."""

    class stream(Stream):  # noqa: N801
        def __init__(self, loop, sock, *args):
            super().__init__(loop, sock, *args)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)


class SpecResumesEarly(WithStream):
    """Resumes a protocol as soon as the buffer is down to the high limit."""

    class stream(Stream):  # noqa: N801
        def _maybe_resume_protocol(self):
            low, self._low_water = self._low_water, self._high_water
            super()._maybe_resume_protocol()
            self._low_water = low


class SpecPausesEarly(WithStream):
    """Pauses a protocol when the buffer equals the high limit."""

    class stream(Stream):  # noqa: N801
        def _maybe_pause_protocol(self):
            self._high_water -= 1
            super()._maybe_pause_protocol()
            self._high_water += 1


class SpecPausesLater(WithStream):
    """Pauses a protocol in the next iteration."""

    class stream(Stream):  # noqa: N801
        def _maybe_pause_protocol(self):
            self._loop.call_soon(self._pause_if_open)

        def _pause_if_open(self):
            if self._loop is not None:
                super()._maybe_pause_protocol()


class SpecLimitsLater(WithStream):
    """Looks at new limits when something is written."""

    class stream(Stream):  # noqa: N801
        def set_write_buffer_limits(self, high=None, low=None):
            self._set_write_buffer_limits(high, low)


class SpecTakesAnyLimits(WithStream):
    """Takes a low limit over the high one."""

    class stream(Stream):  # noqa: N801
        def set_write_buffer_limits(self, high=None, low=None):
            if high is None or low is None:
                super().set_write_buffer_limits(high, low)
            self._high_water, self._low_water = high, low
            self._maybe_pause_protocol()


class SpecCountsChunks(WithStream):
    """Tells how many pieces are queued, not how many bytes."""

    class stream(Stream):  # noqa: N801
        def get_write_buffer_size(self):
            return len(self._buffer)


class SpecAllAtOnce(WithStream):
    """Hands the kernel more buffers than it takes."""

    class stream(Stream):  # noqa: N801
        def _get_sendmsg_buffer(self):
            return self._buffer


class SpecOldProtocol(WithStream):
    """Goes on pausing and resuming the protocol that it had first."""

    class stream(Stream):  # noqa: N801
        first = None

        def set_protocol(self, protocol):
            self.first = self.first or protocol
            super().set_protocol(protocol)

        def _maybe_pause_protocol(self):
            self._with_the_first(super()._maybe_pause_protocol)

        def _maybe_resume_protocol(self):
            self._with_the_first(super()._maybe_resume_protocol)

        def _with_the_first(self, method):
            protocol, self._protocol = self._protocol, self.first
            method()
            self._protocol = protocol


class SpecSpins(WithStream):
    """Tells a protocol of the end in each iteration while it keeps the transport open."""

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            if not self._protocol.eof_received():
                self.close()


class SpecEndsAll(WithStream):
    """Closes a transport at the end of what it receives, whatever eof_received() answers."""

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            self._protocol.eof_received()
            self.close()


class SpecDropsAtEof(WithStream):
    """Aborts a transport whose eof_received() answers no."""

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            if self._protocol.eof_received():
                self._loop._remove_reader(self._sock_fd)
            else:
                self.abort()


class SpecMuteEof(WithStream):
    """Closes a transport at the end of what it receives without calling eof_received()."""

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            self.close()


class SpecForgetsPeer(WithStream):
    """Asks the socket for the peer's address each time."""

    class stream(Stream):  # noqa: N801
        def get_extra_info(self, name, default=None):
            if name == "peername" and self._sock is None:
                return default
            return super().get_extra_info(name, default)


class SpecNoContext(WithStream):
    """Reads in a context of its own."""

    class stream(Stream):  # noqa: N801
        def _add_reader(self, fd, callback, *args):
            contextvars.Context().run(super()._add_reader, fd, callback, *args)


class SpecKeepsAll(WithStream):
    """Keeps every transport that it made."""

    def __init__(self):
        super().__init__()
        self._made = []

    def _make_socket_transport(self, *args, **kwargs):
        self._made.append(super()._make_socket_transport(*args, **kwargs))
        return self._made[-1]


class SpecLosesReason(WithStream):
    """Ends a connection for an exception of its protocol, and tells it None."""

    class stream(Stream):  # noqa: N801
        def _force_close(self, exc):
            super()._force_close(exc if isinstance(exc, OSError) else None)


class SpecSilent(WithStream):
    """Ends a connection for an exception of its protocol, and reports nothing."""

    class stream(Stream):  # noqa: N801
        def _fatal_error(self, exc, message="Fatal error on transport"):
            self._force_close(exc)


class SpecPatient(WithStream):
    """Sends what is queued before it ends a connection for an exception of its protocol."""

    class stream(Stream):  # noqa: N801
        def _fatal_error(self, exc, message="Fatal error on transport"):
            if not self._buffer:
                super()._fatal_error(exc, message)
                return
            context = {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(context)
            self.close()


class SpecCatchesExits(WithStream):
    """Takes an exit for an error of the protocol."""

    class stream(Stream):  # noqa: N801
        def _read_ready(self):
            try:
                super()._read_ready()
            except (SystemExit, KeyboardInterrupt) as error:
                self._fatal_error(error)


class SpecSaysItReads(WithStream):
    """Says that it is reading while it closes."""

    class stream(Stream):  # noqa: N801
        def is_reading(self):
            return not self._paused


class SpecLastWord(WithStream):
    """Delivers what has arrived when it is closed."""

    class stream(Stream):  # noqa: N801
        def close(self):
            if not self._closing and self._read_ready_cb is not None:
                self._read_ready_cb()
            super().close()


class SpecNoHalves(WithStream):
    """Closes the transport where its writing half is to end."""

    class stream(Stream):  # noqa: N801
        def write_eof(self):
            self.close()


class SpecSwallowsLate(WithStream):
    """Drops what is written behind write_eof() without a word."""

    class stream(Stream):  # noqa: N801
        def write(self, data):
            if not self._eof:
                super().write(data)


class SpecFillsBuffer(WithStream):
    """Tells a protocol that its whole buffer was filled."""

    class stream(Stream):  # noqa: N801
        def _read_ready__get_buffer(self):
            buffer = self._protocol.get_buffer(-1)
            count = self._sock.recv_into(buffer)
            if count:
                self._protocol.buffer_updated(len(buffer))
            else:
                self._read_ready__on_eof()


class SpecEmptyIsEnd(WithStream):
    """Takes a protocol's empty buffer for the end of the stream."""

    class stream(Stream):  # noqa: N801
        def _read_ready__get_buffer(self):
            if len(self._protocol.get_buffer(-1)):
                super()._read_ready__get_buffer()
            else:
                self._read_ready__on_eof()


CONNECTED = "tcp/test_contract.py::TestConnected::test_"
ACCEPTED = "tcp/test_contract.py::TestAccepted::test_"
SOCKETS = "tcp/test_sockets.py::test_"
CAUGHT_BY = {
    "SpecLostInline": [
        CONNECTED + "connection_lost_is_not_called_before_close_returns[{}-close]",
        ACCEPTED + "connection_lost_is_not_called_inside_a_callback_that_closes[{}-close]",
    ],
    "SpecNagle": [SOCKETS + "nagles_algorithm_is_off_at_both_ends[{}]"],
    "SpecResumesEarly": [
        CONNECTED + "resume_writing_is_called_once_the_buffer_is_at_or_under_the_low_limit[{}-5000]",
    ],
    "SpecPausesEarly": [CONNECTED + "pause_writing_is_called_strictly_over_the_high_limit[{}]"],
    "SpecPausesLater": [CONNECTED + "pause_writing_is_called_before_write_returns[{}]"],
    "SpecLimitsLater": [Hang(CONNECTED + "lowering_the_limit_under_what_is_buffered_pauses_at_once[{}]")],
    "SpecTakesAnyLimits": [
        CONNECTED + "limits_that_do_not_fit_raise_value_error_and_change_nothing[{}-{'high': 10, 'low': 11}]"
    ],
    "SpecCountsChunks": [Hang(CONNECTED + "the_buffer_size_shrinks_to_zero_as_the_peer_reads[{}]")],
    "SpecAllAtOnce": [CONNECTED + "thousands_of_small_writes_behind_a_stalled_peer_all_arrive[{}]"],
    "SpecOldProtocol": [Hang(ACCEPTED + "flow_control_goes_to_the_protocol_that_is_set_by_then[{}]")],
    "SpecSpins": [ACCEPTED + "a_kept_open_transport_does_not_spin_on_eof[{}]"],
    "SpecEndsAll": [ACCEPTED + "a_true_answer_to_eof_keeps_the_write_side_open[{}-True]"],
    "SpecDropsAtEof": [CONNECTED + "a_transport_closed_by_eof_first_flushes_what_is_queued[{}]"],
    "SpecMuteEof": [
        CONNECTED + "all_data_is_delivered_before_eof[{}]",
        CONNECTED + "eof_while_paused_is_reported_after_resume[{}]",
    ],
    "SpecForgetsPeer": [SOCKETS + "extra_info_has_the_socket_and_both_addresses[{}]"],
    "SpecNoContext": [
        CONNECTED + "callbacks_run_in_the_context_that_made_the_transport[{}-Recorder]",
        "tcp/test_server.py::test_accepted_connections_run_in_the_context_of_create_server[{}]",
    ],
    "SpecKeepsAll": [CONNECTED + "a_closed_transport_and_its_protocol_are_collected[{}-abort]"],
    "SpecLosesReason": [CONNECTED + "an_exception_in_a_callback_is_reported_and_ends_the_connection[{}-data_received]"],
    "SpecSilent": [ACCEPTED + "an_exception_in_a_callback_is_reported_and_ends_the_connection[{}-eof_received]"],
    "SpecPatient": [Hang(CONNECTED + "an_exception_in_data_received_aborts_rather_than_flushes[{}]")],
    "SpecCatchesExits": [
        Hang(CONNECTED + "system_exit_and_keyboard_interrupt_leave_run_forever[{}-data_received-SystemExit]")
    ],
    "SpecSaysItReads": [CONNECTED + "is_reading_tells_pauses_and_closing[{}]"],
    "SpecLastWord": [CONNECTED + "no_data_and_no_eof_is_delivered_after_close_or_abort[{}-close]"],
    "SpecNoHalves": [CONNECTED + "data_is_still_received_after_write_eof[{}]"],
    "SpecSwallowsLate": [CONNECTED + "write_after_write_eof_raises_runtime_error_and_sends_nothing[{}-0]"],
    "SpecFillsBuffer": [CONNECTED + "a_buffered_protocol_gets_the_data_whole_whatever_its_buffer[{}-4096]"],
    "SpecEmptyIsEnd": [CONNECTED + "an_empty_buffer_is_an_error_and_ends_the_connection[{}]"],
}
HARMLESS = CONNECTED + "one_write_reaches_the_peer_whole[{}-100]"
