"""The stream contract, kept by pipe transports as far as one direction goes.

Left out is what asyncio's pipe transports have no part in: BufferedProtocol, abort() of a reading end, a socket to
tell; and what they do differently, which has clauses of its own: types of data, a second close, errors of callbacks.
"""

from .._kit.contracts import stream
from . import makers

READING_HAS_NO = frozenset(
    {
        # Their tests abort.
        "close.never-inline",
        "close.is-closing",
        "close.idempotent",
        "close.while-paused-reading",
        "lifetime.freed-after-close",
        "errors.connection-lost",
        "read.nothing-after-close",
        "read.close-in-data-received",
        # Of sockets only: CPython's pipes copy the context when reading is resumed.
        "context.one",
        # Their tests use a BufferedProtocol.
        "buffered.any-writable-buffer",
        "buffered.callback-raises",
        "buffered.empty-buffer",
        "buffered.not-a-writable-buffer",
        "buffered.order",
        "buffered.whole-in-order",
        "context.of-creation",
        "protocol.set-to-buffered-and-back",
        "protocol.set-while-paused",
        # Their tests ask for the socket.
        "close.peer-sees-end",
        "lifetime.unclosed-warns",
        # An exception of a callback does not end the connection.
        "errors.data-received",
        "errors.eof-received",
        "errors.report",
        "errors.os-error-in-data-received",
    }
)
WRITING_HAS_NO = frozenset({"close.idempotent", "close.type-error-after-lost", "write.other-types"})

TestReading = stream.contract("pipes", makers.Reading(), without=READING_HAS_NO)
TestWriting = stream.contract("pipes", makers.Writing(), without=WRITING_HAS_NO)
