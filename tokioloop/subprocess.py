"""Subprocesses: a part of `TokioLoop`."""

from __future__ import annotations


class SubprocessMixin:
    """Subprocesses."""

    __slots__ = ()
