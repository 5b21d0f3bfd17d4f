"""Names of hosts and services: a part of `TokioLoop`.

asyncio hands every lookup to a thread of the default executor. What is all numbers needs none:
`getaddrinfo(3)` converts a numeric host and `getnameinfo(3)` a numeric answer without asking anybody, so the loop calls
them itself. That costs less than waking a thread, and does not wait behind slow names where the executor is busy.

The calls are the same, with the same arguments, so results and errors are `socket`'s own. What is numeric is decided
narrowly: by `inet_pton(3)`, whose addresses are a part of those that `getaddrinfo(3)` takes for numbers. The rest, like
"127.1", goes to a thread as in asyncio; a scope ("fe80::1%eth0") is the number of an interface, which the kernel knows.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    class _Base(asyncio.BaseEventLoop):
        """With the private methods that typeshed leaves out."""

        def _check_closed(self) -> None: ...
        def _getaddrinfo_debug(self, *args: Any) -> list[Any]: ...
else:
    _Base = object

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

# What a program puts in their places may ask somebody, and block: that goes to a thread, as in asyncio.
_GETADDRINFO, _GETNAMEINFO = socket.getaddrinfo, socket.getnameinfo


class NamesMixin(_Base):
    """Names of hosts and services."""

    __slots__ = ()

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """What `socket.getaddrinfo` gives; in a thread, unless host and port are numeric.

        Raises `socket.gaierror` for what does not resolve, `UnicodeError` for a name that IDNA cannot encode, and
        `RuntimeError` when the loop is closed.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.getaddrinfo
        """
        if not (socket.getaddrinfo is _GETADDRINFO and _is_address(host) and _is_number(port)):
            return await super().getaddrinfo(host, port, family=family, type=type, proto=proto, flags=flags)
        self._check_closed()
        ask = self._getaddrinfo_debug if self.get_debug() else socket.getaddrinfo
        return ask(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """What `socket.getnameinfo` gives; in a thread, unless `flags` ask for numbers only.

        Raises `socket.gaierror` for what does not resolve and `RuntimeError` when the loop is closed.
        Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.getnameinfo
        """
        if not (socket.getnameinfo is _GETNAMEINFO and isinstance(flags, int) and flags & _NUMERIC == _NUMERIC):
            return await super().getnameinfo(sockaddr, flags)
        self._check_closed()
        return socket.getnameinfo(sockaddr, flags)


def _is_address(host: Any) -> bool:
    """Is `host` an address, or none at all, which stands for this machine's own?"""
    if host is None:
        return True
    if isinstance(host, bytes):
        host = host.decode("latin-1")  # what is not ASCII is no address
    if not isinstance(host, str):
        return False
    address, scope, _ = host.partition("%")
    family = socket.AF_INET6 if scope or ":" in address else socket.AF_INET
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError for a zero byte, or a surrogate
        return False
    return True


def _is_number(port: Any) -> bool:
    """Is `port` a number, or none, so that no service has to be looked up?"""
    if isinstance(port, str):
        return port.isascii() and port.isdigit()
    if isinstance(port, bytes):
        return port.isdigit()
    return port is None or isinstance(port, int)
