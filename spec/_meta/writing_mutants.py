"""Loops with one defect each in when they send what is written: the standard library's, broken."""

from __future__ import annotations

import asyncio
from asyncio import selector_events


class _Counting(asyncio.SelectorEventLoop):
    """Counts its iterations."""

    iteration = 0

    def _run_once(self):
        self.iteration += 1
        super()._run_once()


class _Holding(selector_events._SelectorSocketTransport):
    """Holds what is written behind the first write of an iteration until the next one."""

    def __init__(self, *args, **options):
        self._held = []
        self._sent_in = None
        super().__init__(*args, **options)

    def write(self, data):
        if self._sent_in != self._loop.iteration and not self._held:
            self._sent_in = self._loop.iteration
            super().write(data)
            return
        self._held.append(bytes(data))
        self._loop.call_soon(self._release)

    def _release(self):
        held, self._held = self._held, []
        super().write(b"".join(held))

    def write_eof(self):
        self._release()
        super().write_eof()

    def close(self):
        self._release()
        super().close()


class SpecHolds(_Counting):
    """Sends the first write of an iteration, and what follows when it ends."""

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        return _Holding(self, sock, protocol, waiter, **options)


class _HoldingDatagrams(selector_events._SelectorDatagramTransport):
    """Holds what is sent behind the first datagram of an iteration until the next one."""

    def __init__(self, *args, **options):
        self._held = []
        self._sent_in = None
        super().__init__(*args, **options)

    def sendto(self, data, addr=None):
        if self._sent_in != self._loop.iteration and not self._held:
            self._sent_in = self._loop.iteration
            super().sendto(data, addr)
            return
        self._held.append((bytes(data), addr))
        self._loop.call_soon(self._release)

    def _release(self):
        held, self._held = self._held, []
        for data, addr in held:
            super().sendto(data, addr)

    def close(self):
        self._release()
        super().close()


class SpecHoldsDatagrams(_Counting):
    """Sends the first datagram of an iteration, and what follows when it ends."""

    def _make_datagram_transport(self, sock, protocol, address=None, waiter=None, extra=None, **options):
        return _HoldingDatagrams(self, sock, protocol, address, waiter, extra, **options)


class _Doubting(selector_events._SelectorSocketTransport):
    """Notes what was written in an iteration until that ends, and sends it again when it is aborted before."""

    def __init__(self, *args, **options):
        self._noted = []
        super().__init__(*args, **options)

    def write(self, data):
        self._noted.append(bytes(data))
        self._loop.call_soon(self._noted.clear)
        super().write(data)

    def abort(self):
        for data in self._noted:
            super().write(data)
        super().abort()


class SpecRepeats(asyncio.SelectorEventLoop):
    """Sends again what was written before an abort in the same iteration."""

    def _make_socket_transport(self, sock, protocol, waiter=None, **options):
        return _Doubting(self, sock, protocol, waiter, **options)
