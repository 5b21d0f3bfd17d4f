"""Loops with one defect each in their TLS: the standard library's, broken."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto

from spec._meta.parts import HANDSHAKE, WRAPPED, Tls, WithTls
from spec._meta.patience import Hang
from spec.tls import certificates

MADE = sslproto.AppProtocolState.STATE_CON_MADE


class _Early(Tls):
    def connection_made(self, transport):
        if self._app_state is not MADE:
            self._app_state = MADE
            self._transport = transport
            self._app_protocol.connection_made(self._get_app_transport())
        super().connection_made(transport)


class SpecEarly(WithTls):
    """Calls connection_made() before the handshake."""

    protocol = _Early


class _Trusting(Tls):
    def __init__(self, loop, app_protocol, sslcontext, *args, **kwargs):
        if sslcontext is not None:
            sslcontext.check_hostname = False
        super().__init__(loop, app_protocol, sslcontext, *args, **kwargs)


class SpecTrusting(WithTls):
    """Does not match the name of the server."""

    protocol = _Trusting


class _Nameless(Tls):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self._server_hostname:
            self._sslobj = self._sslcontext.wrap_bio(self._incoming, self._outgoing)


class SpecNameless(WithTls):
    """Does not tell the server which name it wants, and so matches none either."""

    protocol = _Nameless


class _Unread(Tls):
    def _do_read(self):
        if self._handshake_timeout_handle is None and not getattr(self, "_begun", False):
            self._begun = True  # the one call at the end of the handshake
            return
        super()._do_read()


class SpecUnread(WithTls):
    """Leaves data that came with the end of the handshake where it is, until more comes."""

    protocol = _Unread


class _Patient(Tls):
    def buffer_updated(self, nbytes):
        if self._state is HANDSHAKE:
            self._handshake_timeout_handle.cancel()
            self._handshake_timeout_handle = self._loop.call_later(
                100 * self._ssl_handshake_timeout, self._check_handshake_timeout
            )
        super().buffer_updated(nbytes)


class SpecPatient(WithTls):
    """Gives the handshake its time again, and much more, whenever a byte arrives."""

    protocol = _Patient


class _Ticking(Tls):
    def _check_handshake_timeout(self):
        self._fatal_error(ConnectionAbortedError("late"))

    def _on_handshake_complete(self, handshake_exc):
        self._handshake_timeout_handle = None  # still due
        super()._on_handshake_complete(handshake_exc)


class SpecTicking(WithTls):
    """Holds an established connection to the time that its handshake had."""

    protocol = _Ticking


class _Deaf(Tls):
    def eof_received(self):
        if self._state is HANDSHAKE:
            return True
        return super().eof_received()


class SpecDeaf(WithTls):
    """Goes on waiting for a peer that has ended its side in the handshake."""

    protocol = _Deaf


class _Leaky(Tls):
    def _fatal_error(self, exc, message=""):
        if isinstance(exc, ssl.SSLError):
            self._transport.pause_reading()
            return
        super()._fatal_error(exc, message)


class _LeakyTransport(sslproto._SSLProtocolTransport):
    def close(self):
        if self._ssl_protocol is not None and self._ssl_protocol._state is WRAPPED:
            super().close()


class SpecLeaky(WithTls):
    """Keeps the socket of a handshake that failed."""

    protocol = _Leaky

    def __init__(self):
        super().__init__()
        sslproto._SSLProtocolTransport = _LeakyTransport


class _Talkative(Tls):
    def connection_lost(self, exc):
        if self._app_state is sslproto.AppProtocolState.STATE_INIT:
            self._loop.call_soon(self._app_protocol.connection_lost, exc)
        super().connection_lost(exc)


class SpecTalkative(WithTls):
    """Tells the protocol of the loss of a connection that was never made."""

    protocol = _Talkative


class _Reporting(Tls):
    def _fatal_error(self, exc, message="Fatal error on transport"):
        super()._fatal_error(exc, message)
        if isinstance(exc, OSError):
            self._loop.call_exception_handler({"message": message, "exception": exc})


class SpecReporting(WithTls):
    """Reports what the peer did wrong."""

    protocol = _Reporting


class _Wrapping(Tls):
    def _wakeup_waiter(self, exc=None):
        super()._wakeup_waiter(ConnectionError(str(exc)) if isinstance(exc, ssl.SSLError) else exc)


class SpecWrapping(WithTls):
    """Raises an error of its own making in place of the engine's."""

    protocol = _Wrapping


class _Own(Tls):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._sslobj = ssl.SSLObject._create(
            self._incoming,
            self._outgoing,
            server_side=self._server_side,
            server_hostname=self._server_hostname,
            context=self._sslcontext,
        )


class SpecOwn(WithTls):
    """Makes its SSL objects itself, past wrap_bio() and sslobject_class."""

    protocol = _Own


class _Forgetful(Tls):
    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._extra.clear()


class SpecForgetful(WithTls):
    """Forgets the facts of the handshake with the connection."""

    protocol = _Forgetful


class _Unsure(Tls):
    def _get_extra_info(self, name, default=None):
        found = super()._get_extra_info(name, default)
        return default if found is None else found


class SpecUnsure(WithTls):
    """Takes a fact that is None for one that is not known."""

    protocol = _Unsure


class _Again(Tls):
    def __init__(self, *args, call_connection_made=True, **kwargs):
        super().__init__(*args, **kwargs)


class SpecAgain(WithTls):
    """Calls connection_made() again where start_tls() has made a connection."""

    protocol = _Again


class _Hiding(Tls):
    def connection_lost(self, exc):
        if self._state is not WRAPPED and self._app_state is MADE:
            self._app_state = sslproto.AppProtocolState.STATE_CON_LOST
        super().connection_lost(exc)


class SpecHiding(WithTls):
    """Keeps from the protocol that its connection was lost to a start_tls() that failed."""

    protocol = _Hiding


class SpecHasty(WithTls):
    """Drops the plain data that was not sent when start_tls() is called."""

    async def start_tls(self, transport, protocol, sslcontext, **options):
        getattr(transport, "_buffer", []).clear()
        return await super().start_tls(transport, protocol, sslcontext, **options)


class SpecSuspended(WithTls):
    """Leaves a transport paused that start_tls() finds paused."""

    async def start_tls(self, transport, protocol, sslcontext, **options):
        if not transport.is_reading():
            transport.resume_reading = lambda: None
        return await super().start_tls(transport, protocol, sslcontext, **options)


class SpecTenacious(WithTls):
    """Leaves the connection open whose start_tls() or create_connection() is cancelled."""

    async def start_tls(self, *args, **options):
        return await asyncio.shield(super().start_tls(*args, **options))

    async def _create_connection_transport(self, *args, **options):
        return await asyncio.shield(super()._create_connection_transport(*args, **options))


class SpecCopying(WithTls):
    """Uses the first context that it was given for every server."""

    _first = None

    async def create_server(self, *args, ssl=None, **options):
        if ssl is not None:
            ssl = self._first = self._first or _copy(ssl)
        return await super().create_server(*args, ssl=ssl, **options)


def _copy(context):
    """A context with the certificate of the tests and the version of `context`, and nothing else of it."""
    copied = certificates.server()
    copied.maximum_version = context.maximum_version
    return copied


HANDSHAKES = "tls/test_handshake.py::test_"
FAILURES = "tls/test_failures.py::test_"
TIMEOUTS = "tls/test_timeouts.py::test_"
CONTEXTS = "tls/test_contexts.py::test_"
EXTRA = "tls/test_extra_info.py::test_"
START_TLS = "tls/test_start_tls.py::test_"
INTERRUPTED = "tls/test_interrupted.py::test_"
CAUGHT_BY = {
    "SpecEarly": [
        HANDSHAKES + "a_server_calls_connection_made_once_the_handshake_is_complete[{}]",
        HANDSHAKES + "create_connection_returns_what_connection_made_was_given_once_the_handshake_is_complete[{}]",
        EXTRA + "everything_is_known_in_connection_made[{}]",
    ],
    "SpecTrusting": [
        Hang(FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-other-name]"),
        START_TLS + "server_hostname_is_what_the_certificate_is_matched_against[{}]",
    ],
    "SpecNameless": [
        CONTEXTS + "the_host_is_the_name_that_is_verified[{}]",
        Hang(FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-other-name]"),
    ],
    "SpecUnread": [
        Hang(HANDSHAKES + "data_in_one_segment_with_the_end_of_the_handshake_is_received[{}-server, TLSv1.3]"),
        Hang(START_TLS + "start_tls_reads_on_where_reading_was_paused_and_the_handshake_had_begun[{}]"),
    ],
    "SpecPatient": [Hang(TIMEOUTS + "the_time_is_that_of_the_whole_handshake_not_of_each_of_its_bytes[{}]")],
    "SpecTicking": [Hang(TIMEOUTS + "a_connection_outlives_the_time_that_its_handshake_had[{}]")],
    "SpecDeaf": [
        Hang(FAILURES + "a_peer_that_ends_its_side_only_ends_the_handshake[{}]"),
        Hang(START_TLS + "a_failure_is_raised_to_the_caller_and_closes_the_connection[{}-ends-ConnectionResetError]"),
    ],
    "SpecLeaky": [
        Hang(FAILURES + "a_server_closes_the_connection_of_a_client_that_sends_something_else[{}-garbage]"),
        Hang(FAILURES + "create_connection_raises_for_whatever_else_a_server_sends[{}-alert]"),
    ],
    "SpecTalkative": [
        FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-untrusted]",
        FAILURES + "a_server_closes_a_connection_that_comes_to_nothing_and_serves_the_next[{}-no-cipher]",
    ],
    "SpecReporting": [
        FAILURES + "create_connection_raises_for_whatever_else_a_server_sends[{}-garbage]",
        "tls/test_reports.py::test_a_client_in_debug_mode_raises_and_reports_nothing[{}]",
    ],
    "SpecWrapping": [
        FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-expired]",
    ],
    "SpecOwn": [
        CONTEXTS + "wrap_bio_of_a_subclass_makes_the_object_that_the_connection_uses[{}-server]",
        CONTEXTS + "a_class_for_ssl_objects_is_used_with_all_its_methods[{}-instance-client]",
        CONTEXTS + "a_client_resumes_the_session_that_its_context_brings_back[{}-TLSv1.2]",
    ],
    "SpecForgetful": [EXTRA + "the_facts_of_the_handshake_outlive_the_connection[{}]"],
    "SpecUnsure": [EXTRA + "compression_is_none_where_there_is_no_compression[{}-client]"],
    "SpecAgain": [START_TLS + "start_tls_returns_a_new_transport_with_which_the_protocol_goes_on[{}-server-tcp]"],
    "SpecHiding": [
        Hang(START_TLS + "the_protocol_loses_its_connection_to_the_failure[{}-ends-ConnectionResetError]"),
    ],
    "SpecHasty": [Hang(START_TLS + "plain_data_that_was_not_sent_yet_goes_out_before_the_handshake[{}-client]")],
    "SpecSuspended": [
        Hang(START_TLS + "start_tls_reads_on_where_reading_was_paused_and_the_handshake_had_begun[{}]"),
    ],
    "SpecTenacious": [
        Hang(INTERRUPTED + "whoever_gives_start_tls_up_closes_the_connection[{}-server-after 10 turns]"),
        Hang(INTERRUPTED + "whoever_gives_a_connection_up_in_its_handshake_closes_it[{}-after 1 turns]"),
    ],
    "SpecCopying": [
        CONTEXTS + "both_sides_know_the_protocol_that_alpn_selects[{}-server-TLSv1.3]",
        CONTEXTS + "one_context_serves_any_number_of_connections_and_may_be_changed_between_them[{}]",
        CONTEXTS + "secrets_are_written_to_the_context_s_key_log[{}-server]",
    ],
}
HARMLESS = HANDSHAKES + "a_server_shakes_hands_by_the_version_that_the_client_speaks[{}-TLSv1.3]"
