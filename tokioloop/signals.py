"""Signals: a part of `TokioLoop`."""

from __future__ import annotations


class SignalMixin:
    """Signals."""

    __slots__ = ()
