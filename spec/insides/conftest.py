"""The loops that this area is about."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
def of_base_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Only a loop that says it is a BaseEventLoop promises the insides of one."""
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("this loop does not say that it is an asyncio.BaseEventLoop")
