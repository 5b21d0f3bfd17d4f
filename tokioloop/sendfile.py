"""Sending files: a part of `TokioLoop`."""

from __future__ import annotations


class SendfileMixin:
    """Sending files."""

    __slots__ = ()
