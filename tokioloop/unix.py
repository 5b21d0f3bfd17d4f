"""Unix sockets and pipes: a part of `TokioLoop`."""

from __future__ import annotations


class UnixMixin:
    """Unix sockets and pipes."""

    __slots__ = ()
