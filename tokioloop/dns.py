"""Names of hosts and services: a part of `TokioLoop`."""

from __future__ import annotations


class NamesMixin:
    """Names of hosts and services."""

    __slots__ = ()
