"""Transports over a socket whose class has methods of its own.

asyncio calls the methods of the socket object, so a class below `socket.socket` may override `recv` or `send` to count,
to slow down or to change what passes. Our transports make system calls on the descriptor and would pass by it; such
a socket gets CPython's own transport, which the loop serves by `add_reader` and `add_writer`.
Source: Lib/asyncio/selector_events.py, `_SelectorSocketTransport`.
"""

from __future__ import annotations

import _socket
import asyncio
import contextvars
import socket
import weakref
from asyncio import selector_events
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._tokioloop import TlsProtocol

_METHODS = ("recv", "recv_into", "send", "sendmsg")


def has_own_methods(sock: socket.socket) -> bool:
    """Whether a transport would have to call the socket's methods."""
    kind, own = type(sock), getattr(sock, "__dict__", ())
    return isinstance(sock, socket.socket) and any(
        name in own or getattr(kind, name) is not getattr(_socket.socket, name) for name in _METHODS
    )


class ForeignSocketTransport(selector_events._SelectorSocketTransport):  # type: ignore[misc, name-defined]
    """CPython's transport, on a loop that is not its own."""

    # What the loop's `sendfile` asks of a transport beyond what it asks of asyncio's.
    def _make_writable_waiter(self) -> Awaitable[None]:
        waiter: Awaitable[None] = self._loop._sock_connected(self._sock)
        return waiter

    def _count_sent(self, size: int) -> None:
        pass

    def __repr__(self) -> str:
        if self._sock is None:
            state = "closed"
        else:
            closing = "closing " if self.is_closing() else ""
            state = f"{closing}fd={self._sock.fileno()} bufsize={self.get_write_buffer_size()}"
        return f"<{type(self).__name__} {state}>"


class ForeignSocketsMixin:
    """Makes that transport; a base of the loop's class."""

    __slots__ = ()

    def _make_foreign(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol | TlsProtocol,
        waiter: asyncio.Future[None] | None,
        extra: dict[str, Any] | None,
        server: Any,
        context: contextvars.Context | None,
    ) -> ForeignSocketTransport:
        """A transport that calls the socket's methods. `context` is for what CPython has it, from 3.15 on."""
        more = {} if context is None else {"context": context}
        return ForeignSocketTransport(self, sock, protocol, waiter, extra, server, **more)

    @property
    def _transports(self) -> weakref.WeakValueDictionary[int, Any]:
        # For `_ensure_fd_no_transport`, which the loop does not have.
        return weakref.WeakValueDictionary()
