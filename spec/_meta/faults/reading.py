"""Whole loops that are wrong about what comes in on a connection, and about its end."""

from __future__ import annotations

import contextlib
import contextvars
import socket
import weakref

from spec._meta.parts import EdgesFor, Stream, WithStream, has_ended


class SpecOneReadPerEdge(WithStream):
    """Reads 16 KiB of a connection each time that the kernel tells of a change.

    Stands for loops over mio, which is edge-triggered, that do not read until the socket is empty.
    """

    class stream(Stream):  # noqa: N801
        max_size = 16 * 1024

    def __init__(self):
        super().__init__(EdgesFor())

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        self._selector.edges.add(sock.fileno())
        return super()._make_socket_transport(sock, protocol, waiter, **options)


class SpecFinishesBurst(WithStream):
    """Goes on with what it reads in one turn, though the protocol has paused reading.

    Stands for loops that read until the socket is empty and look at their state before and after.
    """

    class stream(Stream):  # noqa: N801
        max_size = 1024

        def _read_ready(self):
            for _ in range(16):
                if self._conn_lost or self._closing or has_ended(self._sock):
                    break
                super()._read_ready()
            else:
                return
            if not self._conn_lost and not self._closing and not self._paused:
                super()._read_ready()


class SpecEndsBeforeLastByte(WithStream):
    """Takes the connection for ended when the kernel tells that the peer has ended its side, read or not.

    Stands for loops that go by EPOLLRDHUP.
    """

    class stream(Stream):  # noqa: N801
        max_size = 1024

        def _read_ready__data_received(self):
            ended = not self._conn_lost and has_ended(self._sock)
            super()._read_ready__data_received()
            if ended and not self._conn_lost and not self._closing and not self._paused:
                self._read_ready__on_eof()


class SpecLosesTwice(WithStream):
    """Tells the protocol twice that its connection was lost where an error ended it.

    Stands for loops in which the reading and the writing half each report the end.
    """

    class stream(Stream):  # noqa: N801
        def _fatal_error(self, exc, message="Fatal error on transport"):
            if not self._conn_lost:
                self._loop.call_soon(self._protocol.connection_lost, exc)
            super()._fatal_error(exc, message)


class SpecForgetsEndOfPaused(WithStream):
    """Never tells of an end that came while reading was paused.

    Stands for edge-triggered loops, which are told of the end while they do not look.
    """

    class stream(Stream):  # noqa: N801
        _missed = False

        def resume_reading(self):
            self._missed = self._missed or (self._paused and not self._closing and has_ended(self._sock))
            super().resume_reading()

        def _read_ready__on_eof(self):
            if self._missed:
                self._loop._remove_reader(self._sock_fd)
            else:
                super()._read_ready__on_eof()


class SpecIgnoresAnswer(WithStream):
    """Closes a connection at its end, whatever eof_received() says.

    Stands for loops that have no half-closed connections.
    """

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            super()._read_ready__on_eof()
            self.close()


class SpecShutsBothWays(WithStream):
    """write_eof() ends both directions.

    Stands for loops whose shutdown() has no argument.
    """

    class stream(Stream):  # noqa: N801
        def write_eof(self):
            before = self._eof
            super().write_eof()
            if not before and self._eof and not self._buffer:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RD)


class SpecLosesInline(WithStream):
    """Calls connection_lost() before abort() returns.

    Stands for loops that call protocols from wherever they learn something.
    """

    class stream(Stream):  # noqa: N801
        def abort(self):
            before = self._conn_lost
            super().abort()
            if not before:
                lost, protocol = contextvars.copy_context(), self._protocol
                self._protocol_connected = False
                lost.run(protocol.connection_lost, None)


class SpecTellsEndAgain(WithStream):
    """Calls eof_received() in every turn once the protocol has kept the connection open.

    Stands for level-triggered loops that leave the reader of an ended stream where it is.
    """

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            super()._read_ready__on_eof()
            if not self._closing:
                self._loop._add_reader(self._sock_fd, self._read_ready)


class SpecDeliversAfterClose(WithStream):
    """Delivers what had come before close(), in the turn behind it.

    Stands for loops that read ahead, and for those over io_uring, whose request to read is under way.
    """

    class stream(Stream):  # noqa: N801
        def close(self):
            data = b""
            if self.is_reading() and self._protocol is not None and hasattr(self._protocol, "data_received"):
                with contextlib.suppress(OSError):
                    data = self._sock.recv(1024)
            if data:
                self._loop.call_soon(self._protocol.data_received, data)
            super().close()


class SpecHoldsWeakly(WithStream):
    """Forgets a connection that nobody refers to.

    Stands for loops that keep weak references, for fear of cycles.
    """

    class stream(Stream):  # noqa: N801
        def _add_reader(self, fd, callback, *args):
            method = weakref.WeakMethod(callback)

            def call():
                if (found := method()) is not None:
                    found(*args)

            super()._add_reader(fd, call)


class SpecKeepsProtocols(WithStream):
    """Keeps every protocol that a connection has had.

    Stands for extensions whose objects the garbage collector cannot see through.
    """

    def __init__(self):
        self._had = []
        super().__init__()

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        self._had.append(protocol)
        return super()._make_socket_transport(sock, protocol, waiter, **options)


class SpecLeavesCycles(WithStream):
    """Leaves each connection that has ended to the garbage collector.

    Stands for transports that keep a bound method of their own, or a closure over themselves.
    """

    class stream(Stream):  # noqa: N801
        def _call_connection_lost(self, exc):
            super()._call_connection_lost(exc)
            self._itself = self.get_extra_info


class SpecLeavesFailedConnects(WithStream):
    """Leaves the frames of a connection that was refused to the garbage collector.

    Stands for wrappers of a coroutine that keep the exception in a variable.
    """

    async def create_connection(self, *args, **options):
        error = None
        try:
            return await super().create_connection(*args, **options)
        except OSError as failed:
            error = failed
            raise error from None


class SpecRunsInEmptyContext(WithStream):
    """Calls the protocols of connections in an empty context.

    Stands for loops that call protocols from a task of their runtime.
    """

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        return contextvars.Context().run(super()._make_socket_transport, sock, protocol, waiter, **options)
