"""The stream contract, kept by TLS over TCP.

Left out is what TLS does not have (half-close) and where two transports, one upon the other, make a difference: what
waits for the peer's close_notify, the sizes of buffers, and whom a report names. Those have clauses of their own.
"""

from .._kit.contracts import stream
from . import makers

OTHERWISE = frozenset(
    {
        "abort.discards", "buffered.callback-raises", "buffered.empty-buffer", "buffered.not-a-writable-buffer",
        "buffered.order", "buffered.whole-in-order", "close.in-resume-writing", "close.lost-none",
        "close.while-paused-reading", "close.while-paused-writing", "errors.connection-made", "errors.data-received",
        "flow.buffer-size", "flow.callback-raises", "flow.pause-inline", "flow.resume-at-low",
        "flow.resume-before-empty", "flow.set-limits-pauses", "flow.strictly-over", "flow.write-in-resume",
        "flow.writelines-pauses", "lifetime.unclosed-warns", "protocol.set-flow", "read.close-in-data-received",
        "read.is-reading", "read.nothing-after-close", "read.pause-in-connection-made", "read.resume-after-close",
        "write.among-others", "write.does-not-block", "write.non-contiguous", "writelines.other-types",
        "writelines.after-close",
    }
)  # fmt: skip

TestClient = stream.contract("tls", makers.Tls("client"), without=OTHERWISE)
TestServer = stream.contract("tls", makers.Tls("server"), without=OTHERWISE)
