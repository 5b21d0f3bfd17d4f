"""An echo server over TLS that counts: told `report`, it prints as JSON what became of connections, and what is alive.

Its argument is a file with its certificate and key.
"""

from __future__ import annotations

import asyncio
import collections
import ssl
import sys
from typing import Any, ClassVar

from tests import support
from tests.apps.counting import print_facts, serve


class Echo(asyncio.Protocol):
    """Echoes and counts; `wrong` are callbacks out of order."""

    factories = 0
    made = 0
    lost = 0
    wrong: ClassVar[list[str]] = []
    reasons: ClassVar[collections.Counter[str]] = collections.Counter()
    kinds: ClassVar[set[type]] = set()

    def __init__(self) -> None:
        Echo.factories += 1
        self.state = "new"

    def _enter(self, state: str, *before: str) -> None:
        if self.state not in before:
            Echo.wrong.append(f"{state} after {self.state}")
        self.state = state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._enter("made", "new")
        self.transport = transport
        Echo.made += 1
        Echo.kinds |= {type(transport), type(transport.get_extra_info("ssl_object")), Echo}

    def data_received(self, data: bytes) -> None:
        self._enter("data", "made", "data")
        self.transport.write(data)  # type: ignore[attr-defined]

    def eof_received(self) -> None:
        self._enter("eof", "made", "data")

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter("lost", "made", "data", "eof")
        Echo.lost += 1
        Echo.reasons[type(exc).__name__] += 1


reported: list[str] = []


def report() -> None:
    """Print the facts."""
    print_facts(
        Echo.kinds,
        factories=Echo.factories,
        made=Echo.made,
        lost=Echo.lost,
        wrong=Echo.wrong,
        reasons=Echo.reasons,
        reported=reported,
        tasks=len(asyncio.all_tasks()),
    )


def on_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    reported.append(f"{context['message']}: {context.get('exception')!r}")


async def main(certificate: str) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_error)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context, backlog=1024)
    await serve(server, report)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=support.factory()) as runner:
        runner.run(main(sys.argv[1]))
