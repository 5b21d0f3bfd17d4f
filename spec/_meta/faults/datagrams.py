"""Whole loops that are wrong about datagrams."""

from __future__ import annotations

from spec._meta.parts import Datagram, WithDatagram


class _Filtered(Datagram):
    """Receives as the standard library does, but for what `accepts` refuses."""

    def accepts(self, data):
        raise NotImplementedError

    def _read_ready(self):
        protocol = self._protocol
        received = protocol.datagram_received

        def filtered(data, address):
            if self.accepts(data):
                received(data, address)

        protocol.datagram_received = filtered
        try:
            super()._read_ready()
        finally:
            del protocol.datagram_received


class SpecIgnoresEmpty(WithDatagram):
    """Does not tell of an empty datagram.

    Stands for loops over libuv, which reports "nothing to read" as a datagram of no bytes.
    """

    class datagram(_Filtered):  # noqa: N801
        def accepts(self, data):
            return bool(data)


class SpecEndsOnRefusal(WithDatagram):
    """Ends an endpoint whose peer refused a datagram.

    Stands for loops that treat an endpoint as a connection.
    """

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            protocol = self._protocol
            told = protocol.error_received

            def end(error):
                told(error)
                self._force_close(error)

            protocol.error_received = end
            try:
                super()._read_ready()
            finally:
                del protocol.error_received


class SpecCutsLargest(WithDatagram):
    """Receives 8 KiB of a datagram.

    Stands for loops that receive into a buffer of some fixed size.
    """

    class datagram(Datagram):  # noqa: N801
        max_size = 8 * 1024


class SpecReceivesAll(WithDatagram):
    """Receives until there is nothing left, in one turn.

    Stands for loops that read until the socket is empty, as libuv did before it had a limit.
    """

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            received = []
            protocol = self._protocol
            call = protocol.datagram_received

            def note(data, address):
                received.append(data)
                call(data, address)

            protocol.datagram_received = note
            try:
                more = True
                while more and not self._conn_lost:
                    received.clear()
                    super()._read_ready()
                    more = bool(received)
            finally:
                del protocol.datagram_received


class SpecLosesQueueOnError(WithDatagram):
    """Drops all that waits when one datagram of it fails.

    Stands for loops whose queue is one request to the kernel, as sendmmsg() is.
    """

    class datagram(Datagram):  # noqa: N801
        def _sendto_ready(self):
            protocol = self._protocol
            told = protocol.error_received

            def drop(error):
                self._buffer.clear()
                self._buffer_size = 0
                told(error)

            protocol.error_received = drop
            try:
                super()._sendto_ready()
            finally:
                del protocol.error_received


class SpecMergesDatagrams(WithDatagram):
    """Joins datagrams that wait to be sent to one address.

    Stands for loops that send datagrams by the code for streams.
    """

    class datagram(Datagram):  # noqa: N801
        def _sendto_ready(self):
            if len(self._buffer) > 1 and self._buffer[0][1] == self._buffer[1][1]:
                (one, address), (two, _) = self._buffer.popleft(), self._buffer.popleft()
                if len(one) + len(two) < 60_000:
                    self._buffer.appendleft((one + two, address))
                else:
                    self._buffer.extendleft([(two, address), (one, address)])
            super()._sendto_ready()


class SpecFailsInSendto(WithDatagram):
    """Raises the error of a datagram from sendto().

    Stands for loops that hand an error of sendto(2) to who sent.
    """

    class datagram(Datagram):  # noqa: N801
        def sendto(self, data, addr=None):
            protocol = self._protocol
            if protocol is None:
                super().sendto(data, addr)
                return
            failed = []
            protocol.error_received, before = failed.append, protocol.__dict__.get("error_received")
            try:
                super().sendto(data, addr)
            finally:
                del protocol.error_received
                if before is not None:
                    protocol.error_received = before
            if failed:
                raise failed[0]
