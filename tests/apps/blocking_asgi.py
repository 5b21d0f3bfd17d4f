"""An ASGI application whose requests block the loop until the test, by a connection to the port in CONTROL, says go."""

from __future__ import annotations

import os
import socket
from typing import Any

from tests.apps.asgi import Receive, Send
from tests.apps.asgi import app as answer

control: list[socket.socket] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Say that a request is there, wait for a byte, answer."""
    if scope["type"] != "lifespan":
        if not control:
            control.append(socket.create_connection(("127.0.0.1", int(os.environ["CONTROL"])), 15))
        control[0].sendall(b"?")
        assert control[0].recv(1), "the test has gone"
    await answer(scope, receive, send)
