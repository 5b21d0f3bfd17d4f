"""Loops with one defect each in when they send what is written: the standard library's, broken."""

from __future__ import annotations

import asyncio

from spec._meta.parts import Datagram, Stream, WithDatagram, WithStream
from spec._meta.patience import Hang


class _Counting(asyncio.SelectorEventLoop):
    """Counts its iterations."""

    iteration = 0

    def _run_once(self):
        self.iteration += 1
        super()._run_once()


class _Holding(Stream):
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


class SpecHolds(_Counting, WithStream):
    """Sends the first write of an iteration, and what follows when it ends."""

    stream = _Holding


class _HoldingDatagrams(Datagram):
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


class SpecHoldsDatagrams(_Counting, WithDatagram):
    """Sends the first datagram of an iteration, and what follows when it ends."""

    datagram = _HoldingDatagrams


class _Doubting(Stream):
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


class SpecRepeats(WithStream):
    """Sends again what was written before an abort in the same iteration."""

    stream = _Doubting


_TCP = "tcp/test_contract.py::TestConnected::test_"
_UDP = "udp/test_at_once.py::test_"

CAUGHT_BY = {
    "SpecHolds": [
        Hang(f"{_TCP}each_write_of_a_step_is_with_the_peer_before_the_step_ends[{{}}]"),
        Hang(f"{_TCP}what_another_thread_writes_does_not_wait_for_an_idle_loop[{{}}]"),
        f"{_TCP}the_sockets_own_shutdown_comes_behind_what_was_written[{{}}]",
        Hang(f"{_TCP}what_others_write_by_the_descriptor_keeps_its_place[{{}}]"),
        f"{_TCP}what_was_written_before_a_fork_is_sent_once[{{}}-closes]",
        Hang(f"{_TCP}a_process_that_ends_at_once_has_sent_what_it_wrote[{{}}-os._exit]"),
        Hang(f"{_TCP}what_a_signal_handler_wrote_before_it_raised_is_sent[{{}}]"),
    ],
    "SpecHoldsDatagrams": [
        Hang(f"{_UDP}each_datagram_of_a_step_is_with_the_receiver_before_the_step_ends[{{}}-unconnected]"),
        Hang(f"{_UDP}what_another_thread_sends_does_not_wait_for_an_idle_loop[{{}}-connected]"),
        f"{_UDP}what_was_sent_before_a_fork_is_sent_once[{{}}-closes-unix]",
        Hang(f"{_UDP}a_process_that_ends_at_once_has_sent_what_it_sent[{{}}-os.execv-unconnected]"),
        Hang(f"{_UDP}error_received_is_called_before_sendto_returns[{{}}-unconnected]"),
    ],
    "SpecRepeats": [f"{_TCP}what_was_written_before_a_fork_is_sent_once[{{}}-aborts]"],
}
HARMLESS = f"{_TCP}one_write_reaches_the_peer_whole[{{}}-100]"
