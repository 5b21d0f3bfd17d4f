"""Sending files by `sendfile(2)`: a part of `TokioLoop`. What needs no system call of its own is `BaseEventLoop`'s.

`_UnixSelectorEventLoop._sock_sendfile_native` is not borrowed, as a coroutine of our own is shorter and better:

- The file position is right after a cancellation, too, and of a buffered file of which some was read before.
- A file that is closed meanwhile raises; asyncio would go on with the number, which may be another file's by then.
- A turn sends `PER_TURN` bytes at most; asyncio hands the whole file to one call, which has sent 16 MB, in 18 ms, to a
  peer that kept up.
- A transport that is closed meanwhile raises; asyncio waits for ever. One whose sendfile was cancelled can write on.

Each of these is a clause of `spec/sendfile`.
"""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    class _Base(asyncio.BaseEventLoop):
        # Private names, which typeshed leaves out (tests/test_private_names.py).
        def _sock_connected(self, sock: socket.socket) -> Awaitable[None]: ...
        def _check_sendfile_params(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> None: ...
        async def _sock_sendfile_fallback(
            self, sock: socket.socket, file: Any, offset: int, count: int | None
        ) -> int: ...
        async def _sendfile_fallback(self, transp: Any, file: Any, offset: int, count: int | None) -> int: ...
else:
    _Base = object

PER_TURN = 1 << 18
"""Bytes that one sendfile may send before the loop's other callbacks run."""


class SendfileMixin(_Base):
    """Hooks of `BaseEventLoop.sock_sendfile` and `BaseEventLoop.sendfile`."""

    __slots__ = ()

    async def _sock_sendfile_native(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
        return await _send(file, offset, count, sock.fileno, lambda: self._sock_connected(sock))

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        self._check_sendfile_params(transp._sock, file, offset, count)

        def fileno() -> int:
            if transp.is_closing():
                raise ConnectionError("Connection was closed while a file was sent")
            number: int = transp._sock.fileno()
            return number

        # Whoever has this waiter has the transport: a second sendfile gets a RuntimeError here, and write() as well.
        drained = transp._make_empty_waiter()
        reading = transp.is_reading()
        transp.pause_reading()
        try:
            await drained
            sent = await _send(file, offset, count, fileno, transp._make_writable_waiter)
            transp._count_sent(sent)
            return sent
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    async def _sock_sendfile_fallback(self, sock: socket.socket, file: Any, offset: int, count: int | None) -> int:
        _rewind(file, offset)
        return await super()._sock_sendfile_fallback(sock, file, offset, count)

    async def _sendfile_fallback(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        _rewind(file, offset)
        protocol = transp.get_protocol()
        try:
            return await super()._sendfile_fallback(transp, file, offset, count)
        finally:
            # What it wrote last may have paused the protocol that the fallback has in place meanwhile. The one that is
            # resumed later is the old one, which has heard of no pause.
            if transp._protocol_paused and not transp.is_closing():
                protocol.pause_writing()


async def _send(
    file: Any,
    offset: int,
    count: int | None,
    fileno: Callable[[], int],
    writable: Callable[[], Awaitable[Any]],
) -> int:
    """Send `count` bytes of `file` from `offset` on, or all to its end; the number of bytes sent.

    `fileno()` is the number of the socket, which is asked for before each call, and `writable()` waits for room.
    Raises `SendfileNotAvailableError` for what is no regular file, `OSError` as `sendfile(2)` does.
    """
    try:
        size = os.fstat(file.fileno()).st_size
    except (AttributeError, OSError) as error:
        raise asyncio.SendfileNotAvailableError("not a regular file") from error
    if not size and count is None:
        return 0
    sent = 0
    room = PER_TURN
    try:
        while count is None or sent < count:
            if not room:
                await asyncio.sleep(0)
                room = PER_TURN
            target = fileno()
            wanted = room if count is None else min(room, count - sent)
            try:
                n = os.sendfile(target, file.fileno(), offset + sent, wanted)
            except BlockingIOError:
                await writable()
                room = PER_TURN
                continue
            except ConnectionError:
                raise
            except OSError as error:
                if sent:
                    raise
                # Such as EINVAL, for a file that the kernel cannot map.
                raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
            if not n:
                break
            sent += n
            room -= n
    except BaseException:
        if sent:
            _leave_at(file, offset + sent)
        raise
    # Where nothing was left to send, too; CPython before 3.14.10 leaves the position alone then.
    _leave_at(file, offset + sent)
    return sent


def _leave_at(file: Any, position: int) -> None:
    """Set the position of `file`, unless it was closed meanwhile."""
    with suppress(ValueError):
        if isinstance(file, io.IOBase):
            # Knows what it has read ahead, which `lseek(2)` does not.
            file.seek(position)
        else:
            os.lseek(file.fileno(), position, os.SEEK_SET)


def _rewind(file: Any, offset: int) -> None:
    """Have the fallback send from 0 where that is asked for: it takes 0 for the file's position.

    Source: https://github.com/python/cpython/issues/150107, fixed in CPython's newest only.
    """
    if offset == 0 and hasattr(file, "seek"):
        # A pipe cannot, and is sent all the same.
        with suppress(OSError):
            file.seek(0)
