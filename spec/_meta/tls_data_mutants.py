"""Loops with one defect each in what TLS does after the handshake: the standard library's, broken."""

from __future__ import annotations

import contextlib
import contextvars
import ssl
from asyncio import sslproto

from spec._meta import tls_mutants
from spec._meta.parts import WRAPPED, Tls, WithTls
from spec._meta.patience import Hang

EOF = sslproto.AppProtocolState.STATE_EOF


class _OneRecord(Tls):
    def _do_read__copied(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            chunk = self._sslobj.read(self.max_size)
            if chunk:
                self._app_protocol.data_received(chunk)
            else:
                self._call_eof_received()
                self._start_shutdown()


class SpecOneRecord(WithTls):
    """Delivers one record for each segment, and looks for the others when more comes."""

    protocol = _OneRecord


class _OneBuffer(Tls):
    def _do_read__buffered(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            buffer = self._app_protocol_get_buffer(-1)
            count = self._sslobj.read(len(buffer), buffer)
            if count:
                self._app_protocol_buffer_updated(count)
            else:
                self._call_eof_received()
                self._start_shutdown()


class SpecOneBuffer(WithTls):
    """Fills one buffer for each segment, and leaves what does not fit until more comes."""

    protocol = _OneBuffer


class _Deferred(Tls):
    def _write_appdata(self, list_of_data):
        self._loop.call_soon(super()._write_appdata, list(list_of_data))


class SpecDeferred(WithTls):
    """Keeps what is written, uncopied, for the next iteration."""

    protocol = _Deferred


class _Unstoppable(Tls):
    def _do_read(self):
        paused, self._app_reading_paused = self._app_reading_paused, False
        super()._do_read()
        self._app_reading_paused = self._app_reading_paused or paused


class SpecUnstoppable(WithTls):
    """Delivers while reading is paused."""

    protocol = _Unstoppable


class _Inline(Tls):
    def _resume_reading(self):
        self._app_reading_paused = False
        self._do_read()


class SpecInlineResume(WithTls):
    """Delivers what waited from within resume_reading(), where nothing can pause it again."""

    protocol = _Inline


class _Bottomless(Tls):
    def _control_ssl_reading(self):
        pass


class SpecBottomless(WithTls):
    """Takes everything from the peer while the protocol has reading paused."""

    protocol = _Bottomless


class _Unlimited(Tls):
    def _control_app_writing(self):
        pass


class SpecUnlimited(WithTls):
    """Never pauses who writes."""

    protocol = _Unlimited


class _HalfDuplex(Tls):
    def _do_read(self):
        if not self._app_writing_paused:
            super()._do_read()


class SpecHalfDuplex(WithTls):
    """Does not read while writing is paused."""

    protocol = _HalfDuplex


class _Rash(Tls):
    def eof_received(self):
        self._app_reading_paused = False
        return super().eof_received()


class SpecRash(WithTls):
    """Lets the end through while reading is paused."""

    protocol = _Rash


class _Rude(Tls):
    def _start_shutdown(self):
        if self._state is WRAPPED:
            self._transport.close()


class SpecRude(WithTls):
    """Closes without close_notify."""

    protocol = _Rude


class _Hasty(Tls):
    def _do_shutdown(self):
        super()._do_shutdown()
        if self._transport is not None:
            self._transport.close()


class SpecHastyClose(WithTls):
    """Does not wait for the peer's close_notify."""

    protocol = _Hasty


class _Endless(Tls):
    def _check_shutdown_timeout(self):
        pass


class SpecEndless(WithTls):
    """Waits for the peer's close_notify for ever."""

    protocol = _Endless


class _Eager(Tls):
    def _check_shutdown_timeout(self):
        self._transport._force_close(None)

    def _on_shutdown_complete(self, shutdown_exc):
        self._shutdown_timeout_handle = None  # still due
        super()._on_shutdown_complete(shutdown_exc)


class SpecStillDue(WithTls):
    """Leaves the time-out of a shutdown running, and tells nobody that it has passed."""

    protocol = _Eager


class _Polite(Tls):
    def _abort(self, *args):
        with contextlib.suppress(ssl.SSLError):
            self._sslobj.unwrap()
        self._process_outgoing()
        super()._abort(*args)


class SpecPolite(WithTls):
    """Sends close_notify behind what abort() cuts off."""

    protocol = _Polite


class _Persistent(Tls):
    def _start_shutdown(self):
        if self._app_state is not EOF:
            super()._start_shutdown()


class SpecPersistent(WithTls):
    """Stays open behind the peer's close_notify."""

    protocol = _Persistent


class _Reticent(Tls):
    reads = False

    def buffer_updated(self, nbytes):
        self.reads = self._state is WRAPPED
        super().buffer_updated(nbytes)
        self.reads = False

    def _process_outgoing(self):
        if not self.reads:
            super()._process_outgoing()


class SpecReticent(WithTls):
    """Keeps what TLS answers of itself for the next write."""

    protocol = _Reticent


class _Numb(Tls):
    def eof_received(self):
        return True


class SpecNumb(WithTls):
    """Takes no notice of a stream that ends without close_notify."""

    protocol = _Numb


class _Mute(Tls):
    def _call_eof_received(self):
        pass


class SpecMute(WithTls):
    """Does not tell the protocol of the end."""

    protocol = _Mute


class _Lenient(Tls):
    def _fatal_error(self, exc, message="Fatal error on transport"):
        if not isinstance(exc, ssl.SSLError):
            super()._fatal_error(exc, message)


class SpecLenient(WithTls):
    """Goes on behind a record that is not authentic."""

    protocol = _Lenient


class _Alarmed(Tls):
    def _fatal_error(self, exc, message="Fatal error on transport"):
        super()._fatal_error(exc, message)
        if isinstance(exc, ssl.SSLError):
            self._loop.call_exception_handler({"message": message, "exception": exc})


class SpecAlarmed(WithTls):
    """Reports what is the peer's doing."""

    protocol = _Alarmed


class _Forgiving(Tls):
    def _fatal_error(self, exc, message="Fatal error on transport"):
        if isinstance(exc, OSError):
            super()._fatal_error(exc, message)
        else:
            self._loop.call_exception_handler({"message": message, "exception": exc})


class SpecForgiving(WithTls):
    """Goes on behind an exception of the protocol."""

    protocol = _Forgiving


class _Double(Tls):
    def connection_lost(self, exc):
        protocol = self._app_protocol
        super().connection_lost(exc)
        self._loop.call_soon(protocol.connection_lost, exc)


class SpecDouble(WithTls):
    """Calls connection_lost() twice."""

    protocol = _Double


class _Strange(Tls):
    def connection_lost(self, exc):
        contextvars.Context().run(super().connection_lost, exc)


class SpecStrange(WithTls):
    """Calls connection_lost() in an empty context."""

    protocol = _Strange


_kept = []


class _Hoarding(Tls):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _kept.append(self)


class SpecHoarding(WithTls):
    """Keeps every connection that it has had."""

    protocol = _Hoarding


class _Attentive(Tls):
    def connection_lost(self, exc):
        super().connection_lost(exc)
        _kept.append((self._app_transport, self._sslobj))


class SpecAttentive(WithTls):
    """Keeps the SSL object of every connection that it has had."""

    protocol = _Attentive


class SpecClinging(tls_mutants.SpecDeaf):
    """Keeps the socket of a peer that ended its side in the handshake."""


class SpecUnrestored(WithTls):
    """Leaves a transport over which a file was sent paused."""

    async def _sendfile_fallback(self, transport, file, offset, count):
        sent = await super()._sendfile_fallback(transport, file, offset, count)
        transport.pause_reading()
        return sent


CONTRACT = "tls/test_contract.py::TestClient::test_"
DATA = "tls/test_data.py::test_"
FLOW = "tls/test_flow.py::test_"
CLOSING = "tls/test_closing.py::test_"
ENDS = "tls/test_eof.py::test_"
CALLBACKS = "tls/test_callbacks.py::test_"
MEMORY = "tls/test_memory.py::test_"
MANY = "tls/test_many.py::test_"
CAUGHT_BY = {
    "SpecOneRecord": [
        Hang(DATA + "records_that_come_in_one_segment_are_all_delivered[{}-TLSv1.3-Recorder-2]"),
        Hang(ENDS + "data_and_close_notify_of_one_segment_come_in_order[{}-client]"),
    ],
    "SpecOneBuffer": [
        Hang(DATA + "a_record_larger_than_the_buffer_of_a_protocol_is_delivered_whole[{}-100]"),
        Hang(CALLBACKS + "a_buffered_protocol_gets_the_data_whole_whatever_its_buffer[{}-client-7]"),
    ],
    "SpecDeferred": [
        CONTRACT + "a_buffer_may_be_reused_as_soon_as_write_has_returned[{}]",
        CLOSING + "the_peer_gets_close_notify_behind_the_data[{}-client-TLSv1.3]",
    ],
    "SpecUnstoppable": [
        FLOW + "nothing_is_delivered_while_reading_is_paused[{}-client-Recorder]",
        FLOW + "what_was_decrypted_already_waits_too[{}-10]",
    ],
    "SpecInlineResume": [FLOW + "pausing_again_before_the_loop_goes_on_holds_back_what_waits[{}]"],
    "SpecBottomless": [FLOW + "a_peer_that_sends_to_a_paused_transport_is_stopped[{}-client]"],
    "SpecUnlimited": [
        FLOW + "a_peer_that_does_not_read_pauses_the_writer_until_it_reads[{}-client]",
        Hang(ENDS + "drain_waits_for_a_peer_that_does_not_read[{}]"),
    ],
    "SpecHalfDuplex": [Hang(FLOW + "data_is_received_while_writing_is_paused[{}-Recorder]")],
    "SpecRash": [FLOW + "the_peers_end_comes_behind_its_data_when_reading_is_resumed[{}-client-0-cut]"],
    "SpecRude": [
        CLOSING + "the_peer_gets_close_notify_behind_the_data[{}-client-TLSv1.3]",
        CLOSING + "a_plain_ssl_socket_sees_a_clean_end[{}-server]",
        ENDS + "a_close_notify_is_the_end_and_is_answered[{}-Recorder-client-TLSv1.3]",
    ],
    "SpecHastyClose": [
        CLOSING + "connection_lost_is_called_when_the_peer_has_answered_close_notify[{}-client-TLSv1.3]",
    ],
    "SpecEndless": [
        Hang(CLOSING + "a_peer_that_does_not_answer_is_waited_for_no_longer_than_the_shutdown_timeout[{}-client]"),
        Hang(CLOSING + "the_shutdown_timeout_ends_a_flush_that_does_not_get_on_too[{}]"),
    ],
    "SpecStillDue": [
        CLOSING + "the_timeout_of_a_shutdown_that_was_answered_is_gone[{}]",
        CLOSING + "connection_lost_is_told_of_the_timeout[{}]",
    ],
    "SpecPolite": [CLOSING + "abort_sends_no_close_notify[{}-client-5]"],
    "SpecReticent": [
        Hang(
            "tls/test_records.py::"
            "test_a_certificate_asked_for_behind_the_handshake_is_sent_though_nothing_is_written[{}-reading]"
        ),
    ],
    "SpecPersistent": [
        Hang(ENDS + "a_true_answer_to_eof_does_not_keep_the_connection_open_and_is_warned_of[{}-client-Recorder]"),
        Hang(ENDS + "a_close_notify_is_the_end_and_is_answered[{}-Buffered-server-TLSv1.2]"),
    ],
    "SpecNumb": [
        Hang(ENDS + "a_stream_that_ends_without_close_notify_ends_the_connection[{}-client-TLSv1.3-5]"),
        Hang(ENDS + "a_reader_gets_what_came_before_a_stream_was_cut_short[{}]"),
    ],
    "SpecMute": [ENDS + "a_stream_cut_short_is_told_as_an_end_like_any_other[{}-client-Recorder]"],
    "SpecLenient": [
        Hang(ENDS + "bytes_that_are_no_record_of_the_peer_end_the_connection[{}-client-TLSv1.3-a changed bit]"),
        Hang(ENDS + "garbage_that_comes_while_reading_is_paused_ends_the_connection_when_it_is_resumed[{}]"),
    ],
    "SpecAlarmed": [
        ENDS + "bytes_that_are_no_record_of_the_peer_end_the_connection[{}-server-TLSv1.2-plain text]",
    ],
    "SpecForgiving": [
        Hang(
            CALLBACKS + "an_exception_in_a_callback_is_reported_once_and_ends_the_connection_with_it"
            "[{}-client-data_received-Boom]"
        ),
        Hang(CALLBACKS + "a_thing_that_is_no_writable_buffer_is_reported_and_ends_the_connection[{}-int]"),
    ],
    "SpecDouble": [
        CLOSING + "close_and_abort_from_within_any_callback_end_the_connection_once[{}-data_received-abort]",
        MANY + "half_of_the_clients_break_off_and_nothing_is_left[{}]",
    ],
    "SpecStrange": [CALLBACKS + "callbacks_run_in_the_context_that_made_the_transport[{}-client-Recorder]"],
    "SpecHoarding": [
        MEMORY + "connections_one_after_the_other_take_no_more_memory[{}-server-Recorder]",
    ],
    "SpecAttentive": [MEMORY + "an_ended_connection_is_collected[{}-client-cut]"],
    "SpecClinging": [
        Hang(MANY + "half_of_the_clients_break_off_and_nothing_is_left[{}]"),
        Hang(MANY + "half_of_the_servers_break_off_and_each_connection_is_made_or_raises[{}]"),
    ],
    "SpecUnrestored": [
        Hang("tls/test_sendfile.py::test_what_comes_meanwhile_is_delivered_and_the_protocol_is_as_before[{}]"),
    ],
}
HARMLESS = DATA + "what_goes_out_comes_back_whole[{}-client-TLSv1.3-1]"
