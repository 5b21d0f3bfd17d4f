"""`TokioLoop`: the event loop, on top of the Rust half in `tokioloop._tokioloop`.

What is hot (scheduling, the turn, watchers, transports, `sock_*`) is Rust. What is not comes from
`asyncio.BaseEventLoop`, so that it is each CPython version's own: argument checks, `create_connection`,
`create_server`, name resolution, executors, asynchronous generators, `Server`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import sys
import weakref
from asyncio import base_events, format_helpers
from typing import TYPE_CHECKING, Any

from . import diagnostics
from ._tokioloop import LoopCore, adopt_methods, expect_turns, take_back
from .dns import NamesMixin
from .foreign import ForeignSocketsMixin, has_own_methods
from .insides import InsidesMixin
from .sendfile import SendfileMixin
from .signals import SignalMixin, SignalPipe, WakeupFd
from .subprocess import ProcessTransport, SubprocessMixin
from .tls import TlsMixin, check_context
from .unix import UnixMixin, remove_socket_file

if TYPE_CHECKING:
    import contextvars
    import ssl
    from collections.abc import Callable

__all__ = ("TokioLoop",)

#: `Server` counts its transports since 3.13, where it can close them; before, it counts their number.
_SERVER_KNOWS_TRANSPORTS = sys.version_info >= (3, 13)


def _attributes_of_base() -> tuple[str, ...]:
    """Names of what `BaseEventLoop` keeps in an instance and `LoopCore` does not."""
    base = asyncio.BaseEventLoop()
    base.close()
    return tuple(name for name in vars(base) if not hasattr(LoopCore, name) and not hasattr(InsidesMixin, name))


def clear_frames_of(function: Any, exc: BaseException) -> None:
    """Empty the frames of a coroutine function, which has ended, in the traceback of the exception it raised.

    A variable of theirs has the exception (a future, a list of exceptions): a cycle that would hold the frames of all
    callers until the garbage collector runs.
    """
    code = getattr(function, "__code__", None)
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is code:
            trace.tb_frame.clear()
        trace = trace.tb_next


class TokioLoop(
    UnixMixin,
    SubprocessMixin,
    SignalMixin,
    SendfileMixin,
    TlsMixin,
    NamesMixin,
    ForeignSocketsMixin,
    InsidesMixin,
    LoopCore,
    asyncio.BaseEventLoop,
):
    """An asyncio event loop on Tokio.

    A drop-in for `asyncio.SelectorEventLoop`. `stats()` tells what it counts and which endpoints live on it.

    `coalesce_writes` (bool, off) has what transports write in a turn of the loop leave when the turn ends, in one send
    per transport; TOKIOLOOP_COALESCE=1 in the environment switches it on for new loops (`ValueError` for anything but
    1, 0 or nothing).
    """

    # With everything in slots an instance has no dict until a user sets an attribute, and CPython finds
    # `loop.call_soon` without looking into one (20 ns of 85).
    __slots__ = (
        *_attributes_of_base(),
        "_children",
        "_private_socket",
        "_selector_given",
        "_signal_handlers",
        "_signal_pipe",
        "_signals_noted",
        "_unix_server_sockets",
        "_wakeup_fd_before",
    )

    def __init__(self) -> None:
        super().__init__()
        #: The deque and the list that BaseEventLoop made are nobody's.
        take_back(self)
        #: `_selector`, once somebody asked for it.
        self._selector_given: Any = None
        diagnostics.register(self)
        #: The socket that the loop connected last: nobody else can close it under its transport.
        self._private_socket: weakref.ref[socket.socket] | None = None
        #: Transports of children whose exit the loop watches for.
        self._children: set[ProcessTransport] = set()
        #: By listening socket: the inode of its file, which goes with it.
        self._unix_server_sockets: dict[socket.socket, int] = {}
        #: By signal: a handle of what add_signal_handler() was given.
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        #: Where CPython writes the number of a signal that came in.
        self._signal_pipe: SignalPipe | None = None
        #: The signals that CPython has run the loop's handler in Python for since the last delivery.
        self._signals_noted: set[int] = set()
        #: What signal.set_wakeup_fd() was set to before the loop's handlers.
        self._wakeup_fd_before: WakeupFd | None = None

    # ---- lifecycle

    def run_forever(self) -> None:
        """Run until `stop()` is called.

        Raises `RuntimeError` when the loop is closed or running, or another loop runs in this thread.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.run_forever
        """
        self._check_closed()
        self._check_running()
        watched = self._watch_signals()
        expect_turns(self, True)
        try:
            super().run_forever()
        finally:
            expect_turns(self, False)
            if watched:
                self._unwatch_signals()

    def close(self) -> None:
        """Close the loop; what is scheduled or open on it is let go of.

        Raises `RuntimeError` when the loop is running.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.close
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        self._close_children()
        try:
            self._close_signals()
        finally:
            super().close()
            self._close_core()

    # ---- hooks of BaseEventLoop

    async def _connect_sock(self, *args: Any, **kwargs: Any) -> socket.socket:
        connecting = super()._connect_sock(*args, **kwargs)
        # A list of exceptions is among them: a traceback of one of these shall not hold it.
        del args, kwargs
        sock = await connecting
        # `create_connection` makes the transport in the same step, unless several attempts were racing.
        self._private_socket = weakref.ref(sock)
        return sock

    async def _create_connection_transport(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._create_connection_transport(*args, **kwargs)
        except BaseException as exc:
            clear_frames_of(asyncio.BaseEventLoop._create_connection_transport, exc)
            raise

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Transport:
        check_context("_make_socket_transport", context)
        if has_own_methods(sock):
            return self._make_foreign(sock, protocol, waiter, extra, server, context)
        return self._make_stream(sock, protocol, waiter, extra, server, self._is_private(sock), context)

    def _is_private(self, sock: socket.socket) -> bool:
        """Whether nobody but the loop has the socket."""
        return self._private_socket is not None and self._private_socket() is sock

    @functools.wraps(asyncio.BaseEventLoop.create_datagram_endpoint)
    async def create_datagram_endpoint(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *args: Any, **kwargs: Any
    ) -> tuple[asyncio.DatagramTransport, asyncio.BaseProtocol]:
        """As `BaseEventLoop`'s; tells the Rust half whose the socket is."""

        def factory() -> asyncio.BaseProtocol:
            protocol = protocol_factory()
            # The transport is made in the same step, over a socket that nobody else can close.
            self._expect_private_datagrams()
            return protocol

        private = kwargs.get("sock") is None
        try:
            return await super().create_datagram_endpoint(factory if private else protocol_factory, *args, **kwargs)
        except BaseException as exc:
            clear_frames_of(asyncio.BaseEventLoop.create_datagram_endpoint, exc)
            raise

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        check_context("_start_serving", context)
        accept_secure = None
        if sslcontext is not None:

            def accept_secure(conn: socket.socket, address: Any, context: contextvars.Context) -> None:
                self._accept_secure(
                    protocol_factory,
                    conn,
                    address,
                    sslcontext,
                    server,
                    ssl_handshake_timeout,
                    ssl_shutdown_timeout,
                    context,
                )

        # A negative one counts as 0, as it does for socket.listen().
        self._listen(sock, max(backlog, 0), server, protocol_factory, accept_secure, context)

    def _stop_serving(self, sock: socket.socket) -> None:
        file = self._forget_unix_server(sock)
        self._unlisten(sock)
        sock.close()
        if file is not None:
            remove_socket_file(*file)

    def _server_attach(self, server: Any, transport: asyncio.Transport) -> None:
        if _SERVER_KNOWS_TRANSPORTS:
            server._attach(transport)
        else:
            server._attach()

    def _server_detach(self, server: Any, transport: asyncio.Transport) -> None:
        if _SERVER_KNOWS_TRANSPORTS:
            server._detach(transport)
        else:
            server._detach()

    # ---- sockets

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to `address`, which is resolved first where the family has names.

        Raises `OSError` as `connect(2)` does, `TypeError` for an SSL socket, `ValueError` in debug mode for a
        blocking one.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.sock_connect
        """
        self._check_socket(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, getattr(socket, "AF_INET6", None)):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            _, _, _, _, address = resolved[0]
        try:
            sock.connect(address)
        except (BlockingIOError, InterruptedError) as exc:
            if exc.errno == errno.EAGAIN and sock.family == socket.AF_UNIX:
                # connect(2): the server's backlog is full. The kernel does not go on, and nothing tells of room.
                raise
            # Interrupted, the kernel goes on connecting (PEP 475).
            await self._sock_connected(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error != 0:
                raise OSError(error, f"Connect call failed {address}") from None

    @staticmethod
    def _check_socket(sock: Any) -> None:
        base_events._check_ssl_socket(sock)

    # ---- called by the Rust half

    def _debug_check(self, callback: Any, method: str, own_thread: bool) -> None:
        if own_thread:
            self._check_thread()
        self._check_callback(callback, method)

    def _debug_stack(self) -> Any:
        return format_helpers.extract_stack(sys._getframe(1))

    def _report_slow(self, what: Any, took: float) -> None:
        shown = base_events._format_handle(what) if isinstance(what, asyncio.Handle) else repr(what)
        base_events.logger.warning("Executing %s took %.3f seconds", shown, took)

    def _warn_lost_write(self, pipe: bool) -> None:
        what = "pipe closed by peer or os.write(pipe, data)" if pipe else "socket.send()"
        base_events.logger.warning("%s raised exception.", what)

    def _log_fatal(self, transport: asyncio.Transport, message: str, exc: BaseException) -> None:
        base_events.logger.debug("%r: %s", transport, message, exc_info=exc)


def _before_fork() -> None:
    for loop in diagnostics.loops():
        loop._before_fork()


def _after_fork_in_child() -> None:
    for loop in diagnostics.loops():
        loop._after_fork_in_child()


adopt_methods(TokioLoop)
os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
