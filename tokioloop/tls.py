"""TLS: a part of `TokioLoop`.

The cryptography is the user's `ssl.SSLContext`, by an `ssl.SSLObject` between two `ssl.MemoryBIO`s; the Rust half
drives it (`TlsTransport` and `TlsProtocol`).
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from asyncio import constants
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from ._tokioloop import TlsProtocol, TlsTransport
from .foreign import has_own_methods

if TYPE_CHECKING:
    import contextvars
    import socket
    from collections.abc import Callable

    from ._tokioloop import LoopCore
    from .foreign import ForeignSocketsMixin

    class _Base(ForeignSocketsMixin, LoopCore): ...
else:
    _Base = object

__all__ = ("TlsMixin", "check_context")


def check_context(hook: str, context: contextvars.Context | None) -> None:
    """Refuse a context for a transport or server where CPython's own hooks take none: before 3.15.

    Raises `TypeError` as they do. Source: https://github.com/python/cpython/issues/140947
    """
    if context is not None and sys.version_info < (3, 15):
        raise TypeError(f"{hook}() got an unexpected keyword argument 'context'")


def _timeout(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


def _default_context(server_side: bool, server_hostname: str | None) -> ssl.SSLContext:
    if server_side:
        raise ValueError("Server side SSL needs a valid SSLContext")
    context = ssl.create_default_context()
    if not server_hostname:
        context.check_hostname = False
    return context


def _calls(ssl_object: Any) -> Any:
    """Return what has `read` and `write`: the core of an SSL object whose class did not override them."""
    cls = type(ssl_object)
    own = getattr(cls, "read", None) is ssl.SSLObject.read and getattr(cls, "write", None) is ssl.SSLObject.write
    return getattr(ssl_object, "_sslobj", ssl_object) if own else ssl_object


def _read_ahead(protocol: asyncio.BaseProtocol) -> bytes:
    """Take from a reader what it has read and nobody asked for: the beginning of the handshake.

    Source: CPython base_events.py, BaseEventLoop.start_tls, since 3.14.4 (gh-142352).
    """
    reader: Any = getattr(protocol, "_stream_reader", None)
    if not isinstance(protocol, asyncio.StreamReaderProtocol) or reader is None:
        return b""
    data = bytes(reader._buffer)
    reader._buffer.clear()
    return data


class TlsMixin(_Base):
    """TLS connections."""

    __slots__ = ()

    if TYPE_CHECKING:
        _debug: bool

        def _is_private(self, sock: socket.socket) -> bool: ...

        def call_exception_handler(self, context: dict[str, Any]) -> None: ...  # noqa: D102

    def _make_tls(
        self,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None,
        server_side: bool,
        server_hostname: str | None,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
        made: bool = False,
    ) -> TlsProtocol:
        """Return the protocol for the stream below; `_app_transport` of it is the user's transport."""
        handshake = _timeout("ssl_handshake_timeout", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
        shutdown = _timeout("ssl_shutdown_timeout", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
        context = sslcontext or _default_context(server_side, server_hostname)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hostname = server_hostname if server_hostname and not server_side else None
        ssl_object = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=hostname)
        return TlsProtocol(
            owner=self,
            protocol=protocol,
            sslcontext=context,
            ssl_object=ssl_object,
            calls=_calls(ssl_object),
            incoming=incoming,
            outgoing=outgoing,
            waiter=waiter,
            made=made,
            handshake=handshake,
            shutdown=shutdown,
        )

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: asyncio.Future[None] | None = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: contextvars.Context | None = None,
    ) -> TlsTransport:
        check_context("_make_ssl_transport", context)
        tls = self._make_tls(
            protocol, sslcontext, waiter, server_side, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout
        )
        if has_own_methods(rawsock):
            self._make_foreign(rawsock, tls, None, extra, server, context)
        else:
            self._make_stream(rawsock, tls, None, extra, server, self._is_private(rawsock), context)
        return tls._app_transport

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> TlsTransport:
        """Upgrade a connection to TLS and return the transport that `protocol` uses from then on.

        Raises `TypeError` for a transport that cannot be upgraded or a context that is none, `ValueError` for a
        time-out that is not positive, `ssl.SSLError`, `ConnectionResetError` or `ConnectionAbortedError` when the
        handshake fails, the last one for a transport that is closing, too.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.start_tls
        """
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}")
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        lower: Any = transport
        if lower.is_closing():
            raise ConnectionAbortedError("the transport is closing: there is nothing to upgrade")
        waiter = self.create_future()
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
            made=True,
        )
        # Nothing may come to the new protocol before its connection_made().
        lower.pause_reading()
        lower.set_protocol(tls)
        scheduled = [self.call_soon(tls.connection_made, lower)]
        if early := _read_ahead(protocol) if server_side else b"":
            scheduled.append(self.call_soon(tls.data_received, early))
        scheduled.append(self.call_soon(lower.resume_reading))
        try:
            await waiter
        except BaseException:
            lower.close()
            for handle in scheduled:
                handle.cancel()
            # Its exception's traceback holds this frame, which shall not hold it.
            del waiter, tls
            raise
        return tls._app_transport

    def _accept_secure(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        conn: socket.socket,
        address: Any,
        sslcontext: ssl.SSLContext,
        server: Any,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
        context: contextvars.Context,
    ) -> None:
        """Make the TLS connection of an accepted socket; `BaseSelectorEventLoop._accept_connection2` takes a task."""
        report: dict[str, Any] = {"message": "Error on transport creation for incoming connection"}
        waiter = None
        try:
            protocol = report["protocol"] = protocol_factory()
            if self._debug:
                # A peer that fails its handshake is no fault of the server's: reported in debug mode only.
                waiter = self.create_future()
            tls = self._make_tls(protocol, sslcontext, waiter, True, None, ssl_handshake_timeout, ssl_shutdown_timeout)
            self._make_stream(conn, tls, None, {"peername": address}, server, True, context)
            report["transport"] = tls._app_transport
        except (SystemExit, KeyboardInterrupt):
            conn.close()
            raise
        except BaseException as exc:
            conn.close()
            self.call_exception_handler(report | {"exception": exc})
            return
        if waiter is not None:

            def handshaken(waiter: asyncio.Future[None]) -> None:
                exc = waiter.exception()
                if exc is not None:
                    self.call_exception_handler(report | {"exception": exc})

            waiter.add_done_callback(handshaken)

    # ---- called by the Rust half

    @staticmethod
    def _warn_closed_tls() -> None:
        logger.warning("SSL connection is closed")

    @staticmethod
    def _warn_tls_kept_open() -> None:
        logger.warning("returning true from eof_received() has no effect when using ssl")
