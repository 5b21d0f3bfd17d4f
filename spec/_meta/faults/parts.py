"""What the loops of the museum have in common: the classes of transports that they use."""

from __future__ import annotations

import asyncio
import select
import selectors
from asyncio import selector_events

Stream = selector_events._SelectorSocketTransport
Datagram = selector_events._SelectorDatagramTransport


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
