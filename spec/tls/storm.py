"""Peers that break off at random points, of the handshake or of what follows, for tests of many connections."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from typing import Any, NamedTuple

from .._kit import peers
from . import certificates
from .peer import Vanished, Wire

MESSAGE = b"echo " * 200
LONGEST = 1600
"""A peer sends some more bytes than these from its first one to its close_notify."""


class Plan(NamedTuple):
    """What a peer does: how many bytes it sends before it breaks off (all of them where None), and how it ends."""

    limit: int | None
    reset: bool


def plans(dice: random.Random, count: int) -> list[Plan]:
    """`count` plans, half of which break off, at random points that `dice` draws."""
    made = [Plan(dice.randrange(LONGEST) if at % 2 else None, dice.random() < 0.5) for at in range(count)]
    dice.shuffle(made)
    return made


def follow(sock: socket.socket, context: ssl.SSLContext, plan: Plan, *, server_side: bool = False) -> bool:
    """Shake hands, send `MESSAGE`, have it back and end in an orderly way: did it go all the way?

    It ends where the plan says. A server has the message first and sends it back. The socket is closed. AssertionError
    where what comes back is something else; OSError where the other side fails a peer that has not broken off.
    """
    wire = Wire(sock, context, server_side=server_side, limit=plan.limit)
    try:
        with sock:
            try:
                if plan.limit == 0:
                    raise Vanished
                wire.handshake()
                if server_side:
                    wire.send(_exactly(wire, len(MESSAGE)))
                else:
                    wire.send(MESSAGE)
                    assert _exactly(wire, len(MESSAGE)) == MESSAGE
                wire.run(wire.tls.unwrap)
            except Vanished:
                if plan.reset:
                    peers.reset(sock)
                return False
    except OSError:
        if plan.limit is None:
            raise
        return False
    return True


def call(addr: Any, context: ssl.SSLContext, plan: Plan) -> bool:
    """Connect to `addr` and `follow` the plan."""
    return follow(socket.create_connection(addr[:2], timeout=peers.TIMEOUT), context, plan)


def clients(addr: Any, made: list[Plan], threads: int = 4) -> int:
    """Follow all plans in some threads; how many went all the way. The first failure of a peer is raised."""
    context = certificates.client()
    with contextlib.ExitStack() as stack:
        parts = [
            stack.enter_context(peers.thread(lambda part: sum(call(addr, context, plan) for plan in part), part))
            for part in (made[at::threads] for at in range(threads))
        ]
        return sum(part.result(600) for part in parts)


def _exactly(wire: Wire, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = wire.recv(size - len(got))
        if not piece:
            raise EOFError(bytes(got))
        got += piece
    return bytes(got)
