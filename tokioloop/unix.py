"""Unix sockets and pipes: a part of `TokioLoop`.

`create_unix_connection` and `create_unix_server` are CPython's own: they need `sock_connect`, `_start_serving` and
`_stop_serving` only. Pipes are checked here as CPython's transports check them, and run on the machine of every stream.
"""

from __future__ import annotations

import os
import stat
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket

    from ._tokioloop import LoopCore as _Base
else:
    _Base = object

__all__ = ("UnixMixin", "remove_socket_file")

_Loop = unix_events._UnixSelectorEventLoop


class UnixMixin(_Base):
    """Unix sockets and pipes."""

    __slots__ = ()

    #: The inodes of the files that go with their servers' sockets: filled by CPython's `create_unix_server` since 3.13.
    _unix_server_sockets: dict[socket.socket, int]

    create_unix_connection = _Loop.create_unix_connection
    create_unix_server = _Loop.create_unix_server

    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.ReadTransport:
        return self._make_pipe(pipe, protocol, waiter, extra, False, _prepare(pipe))

    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.WriteTransport:
        return self._make_pipe(pipe, protocol, waiter, extra, True, _prepare(pipe))

    def _forget_unix_server(self, sock: socket.socket) -> tuple[str | bytes, int] | None:
        """The path and inode of the file that is to go with a listening socket, if any; asked before it is closed."""
        inode = self._unix_server_sockets.pop(sock, None)
        return None if inode is None else (sock.getsockname(), inode)


def remove_socket_file(path: str | bytes, inode: int) -> None:
    """Remove the file of a socket that is closed, unless another file has taken its place.

    Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.create_unix_server (`cleanup_socket`)
    """
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as err:
        logger.error("Unable to clean up listening UNIX socket %r: %r", path, err)


def _prepare(pipe: Any) -> tuple[bool, bool]:
    """Make a pipe non-blocking; is it a socket, is it a character device?

    Raises `ValueError` for any other file than a pipe, socket or character device, and for a closed one.
    """
    fd = pipe.fileno()
    mode = os.fstat(fd).st_mode
    socket, device = stat.S_ISSOCK(mode), stat.S_ISCHR(mode)
    if not (socket or device or stat.S_ISFIFO(mode)):
        raise ValueError("Pipe transport is only for pipes, sockets and character devices")
    os.set_blocking(fd, False)
    return socket, device
