"""What faulty loops have in common: each has transports of classes of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import selectors
import threading
from asyncio import selector_events, sslproto, unix_events

Stream = selector_events._SelectorSocketTransport
Datagram = selector_events._SelectorDatagramTransport
ReadPipe = unix_events._UnixReadPipeTransport
WritePipe = unix_events._UnixWritePipeTransport
Child = unix_events._UnixSubprocessTransport
Tls = sslproto.SSLProtocol
HANDSHAKE, WRAPPED = sslproto.SSLProtocolState.DO_HANDSHAKE, sslproto.SSLProtocolState.WRAPPED


class WithStream(asyncio.SelectorEventLoop):
    """A loop whose connections are of its class `stream`."""

    stream = Stream

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        self._ensure_fd_no_transport(sock)
        return self.stream(self, sock, protocol, waiter, **options)


class WithDatagram(asyncio.SelectorEventLoop):
    """A loop whose endpoints are of its class `datagram`."""

    datagram = Datagram

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None, **options):
        self._ensure_fd_no_transport(sock)
        return self.datagram(self, sock, protocol, address, waiter, extra, **options)


class WithPipes(asyncio.SelectorEventLoop):
    """A loop whose pipes are of its classes `reading` and `writing`."""

    reading, writing = ReadPipe, WritePipe

    def _make_read_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return self.reading(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(self, pipe, protocol, waiter=None, extra=None):
        return self.writing(self, pipe, protocol, waiter, extra)


class WithTls(asyncio.SelectorEventLoop):
    """A loop that uses its class `protocol` for TLS: it puts that in the place of asyncio's for its whole process."""

    protocol = Tls

    def __init__(self):
        super().__init__()
        sslproto.SSLProtocol = self.protocol


class WithChildren(asyncio.SelectorEventLoop):
    """A loop that starts children by its class `child`, and waits for each in a thread."""

    child = Child

    async def _make_subprocess_transport(
        self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, **options
    ):
        waiter = self.create_future()
        made = self.child(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **options
        )
        self.watch(made)
        try:
            await waiter
        except BaseException:
            await self.give_up(made)
            raise
        return made

    async def give_up(self, made):
        """Undo a start that was cancelled or failed."""
        made.close()
        await made._wait()

    def watch(self, made):
        """See to it that the loop is told when a child exits."""
        threading.Thread(target=self._wait_for, args=(made,), daemon=True).start()

    def _wait_for(self, made):
        code = self.wait_for(made)
        with contextlib.suppress(RuntimeError):
            self.call_soon_threadsafe(made._process_exited, code)

    def wait_for(self, made):
        """The exit code of a child, once it has exited; called in a thread."""
        return os.waitstatus_to_exitcode(os.waitpid(made.get_pid(), 0)[1])


class EdgesFor(getattr(selectors, "EpollSelector", selectors.DefaultSelector)):
    """Watches the descriptors of `edges` edge-triggered."""

    def __init__(self):
        super().__init__()
        self.edges = set()

    def register(self, fileobj, events, data=None):
        return self._with_edge(super().register, fileobj, events, data)

    def modify(self, fileobj, events, data=None):
        return self._with_edge(super().modify, fileobj, events, data)

    def _with_edge(self, change, fileobj, events, data):
        edge = select.EPOLLET if self._fileobj_lookup(fileobj) in self.edges else 0
        self._EVENT_READ = select.EPOLLIN | edge
        self._EVENT_WRITE = select.EPOLLOUT | edge
        return change(fileobj, events, data)


def has_ended(sock):
    """Has the peer of a socket ended its side, read or not?"""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
