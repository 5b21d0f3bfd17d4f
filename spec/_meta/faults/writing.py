"""Whole loops that are wrong about what goes out on a connection, and about flow control."""

from __future__ import annotations

import collections
import os
import weakref

from spec._meta.parts import Stream, WithStream


class _Corked(Stream):
    """Holds writes until `release()`."""

    first_at_once = True

    def __init__(self, *args, **options):
        self._held = []
        self._wrote_in = None
        super().__init__(*args, **options)

    def write(self, data):
        loop = self._loop
        if not isinstance(data, bytes | bytearray | memoryview) or self._eof or self._conn_lost or self._closing:
            super().write(data)
        elif self.first_at_once and self._wrote_in != loop.turn and not self._held:
            self._wrote_in = loop.turn
            super().write(data)
        elif data:
            self._held.append(bytes(data))
            loop.corked.append(self)

    def writelines(self, list_of_data):
        self.release()
        super().writelines(list_of_data)

    def release(self):
        held, self._held = self._held, []
        if held and not self._eof:
            super().write(b"".join(held))

    def get_write_buffer_size(self):
        return super().get_write_buffer_size() + sum(map(len, self._held))

    def write_eof(self):
        self.release()
        super().write_eof()

    def close(self):
        self.release()
        super().close()

    def abort(self):
        self._held = []
        super().abort()


class _Corking(WithStream):
    """Has its connections send in the end of a turn."""

    stream = _Corked
    turn = 0

    def __init__(self):
        self.corked = []
        super().__init__()

    def _run_once(self):
        self.turn += 1
        super()._run_once()
        self.uncork()

    def uncork(self):
        corked, self.corked = self.corked, []
        for transport in corked:
            transport.release()


class SpecDefersSecondWrite(_Corking):
    """Sends the first write of a turn at once, and the rest when the turn ends.

    Stands for loops that save system calls by a cork: what blocks in the turn holds back what was written before it.
    """


class SpecSendsAtNextTurn(_Corking):
    """Sends when the next turn begins: what the last turn of a run wrote stays behind.

    Stands for loops that queue writes for their I/O thread or for an idle callback.
    """

    class stream(_Corked):  # noqa: N801
        first_at_once = False

    def _run_once(self):
        self.turn += 1
        self.uncork()
        super(_Corking, self)._run_once()


class SpecSendsTwiceAfterFork(WithStream):
    """Has the child of a fork send again what was written in the turn of the fork.

    Stands for loops with a cork whose queue the child inherits and flushes.
    """

    class stream(Stream):  # noqa: N801
        def write(self, data):
            if not self._buffer and not self._conn_lost and isinstance(data, bytes):
                self._loop.written.append((self, data))
            super().write(data)

    def __init__(self):
        self.written = collections.deque(maxlen=64)
        super().__init__()
        again = weakref.WeakMethod(self._send_again)
        os.register_at_fork(after_in_child=lambda: (method := again()) and method())

    def _run_once(self):
        super()._run_once()
        self.written.clear()

    def _send_again(self):
        for transport, data in list(self.written):
            if transport._sock is not None:
                transport._sock.send(data)

    def close(self):
        self.written.clear()
        super().close()


class SpecForgetsBeyondIovMax(WithStream):
    """Sends the first 1024 of the buffers that are queued, and forgets the rest.

    Stands for loops that hand their queue to one writev().
    """

    class stream(Stream):  # noqa: N801
        def _adjust_leftover_buffer(self, nbytes):
            while len(self._buffer) > 1024:
                self._buffer.pop()
            super()._adjust_leftover_buffer(nbytes)


class SpecSendsAgain(WithStream):
    """Sends a buffer again from its start where the kernel took a part of it.

    Stands for loops that advance by buffers and not by bytes.
    """

    class stream(Stream):  # noqa: N801
        def _adjust_leftover_buffer(self, nbytes):
            while nbytes > 0:
                first = self._buffer.popleft()
                if len(first) > nbytes:
                    self._buffer.appendleft(first)
                nbytes -= len(first)


class SpecPausesLate(WithStream):
    """Calls pause_writing() in the next turn.

    Stands for loops that only call protocols from their queue.
    """

    class stream(Stream):  # noqa: N801
        def _maybe_pause_protocol(self):
            self._loop.call_soon(self._pause_now)

        def _pause_now(self):
            if self._protocol is not None:
                super()._maybe_pause_protocol()


class SpecResumesAtZero(WithStream):
    """Calls resume_writing() when nothing is queued any more, whatever the low limit.

    Stands for loops that learn of the end of a write and not of its parts.
    """

    class stream(Stream):  # noqa: N801
        def _maybe_resume_protocol(self):
            if not self._buffer:
                super()._maybe_resume_protocol()


class SpecRaisesFromWrite(WithStream):
    """Raises from write() that the connection was reset.

    Stands for loops that hand an error of send() to who wrote.
    """

    class stream(Stream):  # noqa: N801
        def write(self, data):
            before = self._conn_lost
            super().write(data)
            if self._conn_lost and not before:
                raise BrokenPipeError("the connection was reset")


class SpecAbortFlushes(WithStream):
    """abort() sends what is queued.

    Stands for loops that have one way to end a connection.
    """

    class stream(Stream):  # noqa: N801
        def abort(self):
            self.close()


class SpecFlushesNothing(WithStream):
    """Drops what is queued where the peer's end closes the connection.

    Stands for loops that take the end of the peer's side for the end of both.
    """

    class stream(Stream):  # noqa: N801
        def _read_ready__on_eof(self):
            protocol, conn_lost = self._protocol, self._conn_lost
            super()._read_ready__on_eof()
            if self._closing and self._protocol is protocol and self._conn_lost == conn_lost:
                self._force_close(None)


class SpecCountsBuffers(WithStream):
    """Takes the number of buffers that are queued for their size.

    Stands for loops that bound their queue by entries.
    """

    class stream(Stream):  # noqa: N801
        def get_write_buffer_size(self):
            return len(self._buffer)


class SpecKeepsUnsent(WithStream):
    """Resumes the protocol of a connection that was lost.

    Stands for loops that wake who waits for room without a look at why.
    """

    class stream(Stream):  # noqa: N801
        def _call_connection_lost(self, exc):
            protocol, paused = self._protocol, self._protocol_paused
            super()._call_connection_lost(exc)
            if paused:
                protocol.resume_writing()
