"""Loops with one defect each in datagram endpoints: the standard library's, broken."""

from __future__ import annotations

import contextvars
import socket

from spec._meta.parts import Datagram, WithDatagram
from spec._meta.patience import Hang


class SpecCutsShort(WithDatagram):
    """Receives 8 KiB of a datagram at most."""

    class datagram(Datagram):  # noqa: N801
        max_size = 8192


class SpecEmptyEnds(WithDatagram):
    """Takes an empty datagram for the end, as on a stream."""

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            data, addr = self._sock.recvfrom(self.max_size)
            if data:
                self._protocol.datagram_received(data, addr)
            else:
                self.close()


class SpecSendsNothing(WithDatagram):
    """Does not send an empty datagram."""

    class datagram(Datagram):  # noqa: N801
        def sendto(self, data, addr=None):
            if not isinstance(data, bytes | bytearray | memoryview) or len(data):
                super().sendto(data, addr)


class SpecOneBuffer(WithDatagram):
    """Hands out the buffer that it receives into."""

    def __init__(self):
        super().__init__()
        self._buffer = bytearray(1 << 16)

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            count, addr = self._sock.recvfrom_into(self._loop._buffer)
            self._protocol.datagram_received(memoryview(self._loop._buffer)[:count], addr)


class SpecRefusalEnds(WithDatagram):
    """Ends an endpoint whose datagram was refused."""

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            try:
                data, addr = self._sock.recvfrom(self.max_size)
            except OSError as error:
                self._fatal_error(error)
            else:
                self._protocol.datagram_received(data, addr)


class SpecRefusalMute(WithDatagram):
    """Tells nobody of a datagram that was refused."""

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            try:
                data, addr = self._sock.recvfrom(self.max_size)
            except OSError:
                return
            self._protocol.datagram_received(data, addr)


class SpecRaisesTooLarge(WithDatagram):
    """Raises what the kernel says against a datagram from sendto()."""

    class datagram(Datagram):  # noqa: N801
        def sendto(self, data, addr=None):
            if len(data) > 65507:
                self._sock.send(data) if self._extra["peername"] else self._sock.sendto(data, addr)
            super().sendto(data, addr)


class SpecAnyAddress(WithDatagram):
    """Sends to any address, though it has a remote one."""

    class datagram(Datagram):  # noqa: N801
        def sendto(self, data, addr=None):
            own, self._address = self._address, None
            super().sendto(data, None if own else addr)
            self._address = own


class SpecViewsQueued(WithDatagram):
    """Queues the caller's own buffer."""

    class datagram(Datagram):  # noqa: N801
        def sendto(self, data, addr=None):
            super().sendto(data, addr)
            if self._buffer:
                _, addr = self._buffer.pop()
                self._buffer.append((data, addr))


class SpecDropsQueue(WithDatagram):
    """Drops what waits when it is closed."""

    class datagram(Datagram):  # noqa: N801
        def close(self):
            self.abort()


class SpecPauseLate(WithDatagram):
    """Pauses a protocol with the next datagram that waits."""

    class datagram(Datagram):  # noqa: N801
        def _maybe_pause_protocol(self):
            if len(self._buffer) > 1:
                self._loop.call_soon(super()._maybe_pause_protocol)


class SpecHeadersFree(WithDatagram):
    """Counts nothing for a datagram that is empty."""

    class datagram(Datagram):  # noqa: N801
        def get_write_buffer_size(self):
            return sum(len(data) for data, _ in self._buffer)


class SpecLastIn(WithDatagram):
    """Sends what waits backwards."""

    class datagram(Datagram):  # noqa: N801
        def _sendto_ready(self):
            self._buffer.reverse()
            super()._sendto_ready()


class SpecDrains(WithDatagram):
    """Receives as long as there is anything before it lets others run."""

    class datagram(Datagram):  # noqa: N801
        def _read_ready(self):
            while not self._conn_lost:
                try:
                    data, addr = self._sock.recvfrom(self.max_size)
                except BlockingIOError:
                    return
                except OSError as error:
                    self._protocol.error_received(error)
                else:
                    self._protocol.datagram_received(data, addr)


class SpecOneContext(WithDatagram):
    """Receives in a context of its own."""

    class datagram(Datagram):  # noqa: N801
        def _add_reader(self, fd, callback, *args):
            contextvars.Context().run(super()._add_reader, fd, callback, *args)


class SpecSharesPort(WithDatagram):
    """Lets every address be shared."""

    async def create_datagram_endpoint(self, factory, *args, reuse_port=None, sock=None, **kwargs):
        return await super().create_datagram_endpoint(factory, *args, reuse_port=sock is None, sock=sock, **kwargs)


class SpecBroadcasts(WithDatagram):
    """Allows every endpoint to broadcast."""

    def _make_datagram_transport(self, sock, *args, **kwargs):
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return super()._make_datagram_transport(sock, *args, **kwargs)


class SpecIgnoresFlags(WithDatagram):
    """Does not hand flags on."""

    async def create_datagram_endpoint(self, factory, *args, flags=0, **kwargs):
        return await super().create_datagram_endpoint(factory, *args, **kwargs)


class SpecTakesStreams(WithDatagram):
    """Closes a socket that it refuses."""

    async def create_datagram_endpoint(self, *args, sock=None, **kwargs):
        try:
            return await super().create_datagram_endpoint(*args, sock=sock, **kwargs)
        except ValueError:
            if sock is not None:
                sock.close()
            raise


class SpecFirstOnly(WithDatagram):
    """Tries the first address of a name only."""

    async def _ensure_resolved(self, *args, **kwargs):
        return (await super()._ensure_resolved(*args, **kwargs))[:1]


DATAGRAMS = "udp/test_datagrams.py::test_"
CREATE = "udp/test_create.py::test_"
ERRORS = "udp/test_errors.py::test_"
FLOW = "udp/test_flow.py::test_"
CLOSE = "udp/test_close.py::test_"
FAIRNESS = "udp/test_fairness.py::test_"
CAUGHT_BY = {
    "SpecCutsShort": [DATAGRAMS + "datagrams_of_every_size_up_to_the_largest_go_both_ways_whole[{}-9217]"],
    "SpecEmptyEnds": [Hang(DATAGRAMS + "an_empty_datagram_is_received_as_empty_bytes[{}-True]")],
    "SpecSendsNothing": [Hang(DATAGRAMS + "an_empty_datagram_is_sent[{}-bytes-False]")],
    "SpecOneBuffer": [DATAGRAMS + "what_was_received_stays_as_it_was[{}]"],
    "SpecRefusalEnds": [Hang(ERRORS + "an_endpoint_goes_on_in_both_directions_after_a_refusal[{}]")],
    "SpecRefusalMute": [Hang(ERRORS + "a_refusal_is_told_to_an_endpoint_that_sends_nothing_more[{}]")],
    "SpecRaisesTooLarge": [ERRORS + "a_datagram_that_is_too_large_is_told_to_error_received[{}-65508]"],
    "SpecAnyAddress": [DATAGRAMS + "a_connected_endpoint_takes_its_remote_address_or_none_and_no_other[{}]"],
    "SpecViewsQueued": [FLOW + "a_queued_datagram_is_a_copy_of_the_callers_buffer[{}]"],
    "SpecDropsQueue": [Hang(CLOSE + "what_waits_is_sent_before_connection_lost[{}]")],
    "SpecPauseLate": [
        FLOW + "pause_writing_is_called_before_the_sendto_that_crosses_the_high_limit_returns[{}]",
    ],
    "SpecHeadersFree": [Hang(FLOW + "empty_datagrams_count_so_that_a_queue_of_them_pauses[{}]")],
    "SpecLastIn": [FLOW + "what_waits_is_sent_in_order_once_there_is_room[{}]"],
    "SpecDrains": [Hang(FAIRNESS + "a_callback_that_is_due_does_not_wait_for_thousands_of_datagrams[{}]")],
    "SpecOneContext": [DATAGRAMS + "callbacks_see_the_context_of_the_moment_the_endpoint_was_created[{}]"],
    "SpecSharesPort": [CREATE + "an_endpoint_shares_its_address_with_no_other_that_did_not_ask_to[{}]"],
    "SpecBroadcasts": [CREATE + "broadcasting_is_allowed_only_where_it_was_asked_for[{}-None]"],
    "SpecIgnoresFlags": [CREATE + "flags_are_passed_to_getaddrinfo[{}]"],
    "SpecTakesStreams": [CREATE + "a_stream_socket_raises_value_error_and_stays_open[{}]"],
    "SpecFirstOnly": [CREATE + "the_next_address_is_tried_where_one_fails[{}]"],
}
HARMLESS = CREATE + "the_transport_is_an_asyncio_datagram_transport[{}]"
