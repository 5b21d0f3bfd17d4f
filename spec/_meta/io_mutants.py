"""Loops with one defect each in their watchers, `sock_*`, pipes and servers: the standard library's, broken."""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import selectors
from asyncio import unix_events


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


class _Discarding(unix_events._UnixWritePipeTransport):
    def write_eof(self):
        if not self._closing:
            self.abort()


class SpecHastyPipe(asyncio.SelectorEventLoop):
    """Discards what is queued for a pipe when the pipe is closed."""

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _Discarding(self, pipe, protocol, waiter, extra)


class _Staying(unix_events._UnixReadPipeTransport):
    def _read_ready(self):
        data = os.read(self._fileno, self.max_size)
        if data:
            self._protocol.data_received(data)
            return
        self._loop._remove_reader(self._fileno)
        if not self._protocol.eof_received():
            self.close()


class SpecStayingPipe(asyncio.SelectorEventLoop):
    """Lets eof_received() keep a pipe open, as on a socket."""

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return _Staying(self, pipe, protocol, waiter, extra)


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
