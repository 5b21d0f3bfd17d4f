"""Loops with one defect each in their TLS: the standard library's, broken."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto

from spec.tls import certificates

STOCK = sslproto.SSLProtocol
HANDSHAKE, WRAPPED = sslproto.SSLProtocolState.DO_HANDSHAKE, sslproto.SSLProtocolState.WRAPPED
MADE = sslproto.AppProtocolState.STATE_CON_MADE


class _Loop(asyncio.SelectorEventLoop):
    """Uses `protocol` for TLS, everywhere: a mutant has a process of its own."""

    protocol = STOCK

    def __init__(self):
        super().__init__()
        sslproto.SSLProtocol = self.protocol


class _Early(STOCK):
    def connection_made(self, transport):
        if self._app_state is not MADE:
            self._app_state = MADE
            self._transport = transport
            self._app_protocol.connection_made(self._get_app_transport())
        super().connection_made(transport)


class SpecEarly(_Loop):
    """Calls connection_made() before the handshake."""

    protocol = _Early


class _Trusting(STOCK):
    def __init__(self, loop, app_protocol, sslcontext, *args, **kwargs):
        if sslcontext is not None:
            sslcontext.check_hostname = False
        super().__init__(loop, app_protocol, sslcontext, *args, **kwargs)


class SpecTrusting(_Loop):
    """Does not match the name of the server."""

    protocol = _Trusting


class _Nameless(STOCK):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self._server_hostname:
            self._sslobj = self._sslcontext.wrap_bio(self._incoming, self._outgoing)


class SpecNameless(_Loop):
    """Does not tell the server which name it wants, and so matches none either."""

    protocol = _Nameless


class _Unread(STOCK):
    def _do_read(self):
        if self._handshake_timeout_handle is None and not getattr(self, "_begun", False):
            self._begun = True  # the one call at the end of the handshake
            return
        super()._do_read()


class SpecUnread(_Loop):
    """Leaves data that came with the end of the handshake where it is, until more comes."""

    protocol = _Unread


class _Patient(STOCK):
    def buffer_updated(self, nbytes):
        if self._state is HANDSHAKE:
            self._handshake_timeout_handle.cancel()
            self._handshake_timeout_handle = self._loop.call_later(
                100 * self._ssl_handshake_timeout, self._check_handshake_timeout
            )
        super().buffer_updated(nbytes)


class SpecPatient(_Loop):
    """Gives the handshake its time again, and much more, whenever a byte arrives."""

    protocol = _Patient


class _Ticking(STOCK):
    def _check_handshake_timeout(self):
        self._fatal_error(ConnectionAbortedError("late"))

    def _on_handshake_complete(self, handshake_exc):
        self._handshake_timeout_handle = None  # still due
        super()._on_handshake_complete(handshake_exc)


class SpecTicking(_Loop):
    """Holds an established connection to the time that its handshake had."""

    protocol = _Ticking


class _Deaf(STOCK):
    def eof_received(self):
        if self._state is HANDSHAKE:
            return True
        return super().eof_received()


class SpecDeaf(_Loop):
    """Goes on waiting for a peer that has ended its side in the handshake."""

    protocol = _Deaf


class _Leaky(STOCK):
    def _fatal_error(self, exc, message=""):
        if isinstance(exc, ssl.SSLError):
            self._transport.pause_reading()
            return
        super()._fatal_error(exc, message)


class _LeakyTransport(sslproto._SSLProtocolTransport):
    def close(self):
        if self._ssl_protocol is not None and self._ssl_protocol._state is WRAPPED:
            super().close()


class SpecLeaky(_Loop):
    """Keeps the socket of a handshake that failed."""

    protocol = _Leaky

    def __init__(self):
        super().__init__()
        sslproto._SSLProtocolTransport = _LeakyTransport


class _Talkative(STOCK):
    def connection_lost(self, exc):
        if self._app_state is sslproto.AppProtocolState.STATE_INIT:
            self._loop.call_soon(self._app_protocol.connection_lost, exc)
        super().connection_lost(exc)


class SpecTalkative(_Loop):
    """Tells the protocol of the loss of a connection that was never made."""

    protocol = _Talkative


class _Reporting(STOCK):
    def _fatal_error(self, exc, message="Fatal error on transport"):
        super()._fatal_error(exc, message)
        if isinstance(exc, OSError):
            self._loop.call_exception_handler({"message": message, "exception": exc})


class SpecReporting(_Loop):
    """Reports what the peer did wrong."""

    protocol = _Reporting


class _Wrapping(STOCK):
    def _wakeup_waiter(self, exc=None):
        super()._wakeup_waiter(ConnectionError(str(exc)) if isinstance(exc, ssl.SSLError) else exc)


class SpecWrapping(_Loop):
    """Raises an error of its own making in place of the engine's."""

    protocol = _Wrapping


class _Own(STOCK):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._sslobj = ssl.SSLObject._create(
            self._incoming,
            self._outgoing,
            server_side=self._server_side,
            server_hostname=self._server_hostname,
            context=self._sslcontext,
        )


class SpecOwn(_Loop):
    """Makes its SSL objects itself, past wrap_bio() and sslobject_class."""

    protocol = _Own


class _Forgetful(STOCK):
    def connection_lost(self, exc):
        super().connection_lost(exc)
        self._extra.clear()


class SpecForgetful(_Loop):
    """Forgets the facts of the handshake with the connection."""

    protocol = _Forgetful


class _Unsure(STOCK):
    def _get_extra_info(self, name, default=None):
        found = super()._get_extra_info(name, default)
        return default if found is None else found


class SpecUnsure(_Loop):
    """Takes a fact that is None for one that is not known."""

    protocol = _Unsure


class _Again(STOCK):
    def __init__(self, *args, call_connection_made=True, **kwargs):
        super().__init__(*args, **kwargs)


class SpecAgain(_Loop):
    """Calls connection_made() again where start_tls() has made a connection."""

    protocol = _Again


class _Hiding(STOCK):
    def connection_lost(self, exc):
        if self._state is not WRAPPED and self._app_state is MADE:
            self._app_state = sslproto.AppProtocolState.STATE_CON_LOST
        super().connection_lost(exc)


class SpecHiding(_Loop):
    """Keeps from the protocol that its connection was lost to a start_tls() that failed."""

    protocol = _Hiding


class SpecHasty(_Loop):
    """Drops the plain data that was not sent when start_tls() is called."""

    async def start_tls(self, transport, protocol, sslcontext, **options):
        getattr(transport, "_buffer", []).clear()
        return await super().start_tls(transport, protocol, sslcontext, **options)


class SpecSuspended(_Loop):
    """Leaves a transport paused that start_tls() finds paused."""

    async def start_tls(self, transport, protocol, sslcontext, **options):
        if not transport.is_reading():
            transport.resume_reading = lambda: None
        return await super().start_tls(transport, protocol, sslcontext, **options)


class SpecTenacious(_Loop):
    """Leaves the connection open whose start_tls() or create_connection() is cancelled."""

    async def start_tls(self, *args, **options):
        return await asyncio.shield(super().start_tls(*args, **options))

    async def _create_connection_transport(self, *args, **options):
        return await asyncio.shield(super()._create_connection_transport(*args, **options))


class SpecCopying(_Loop):
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
