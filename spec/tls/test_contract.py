"""The stream contract, kept by TLS over TCP, but for half-close, which TLS does not have."""

from spec._kit.contracts import stream
from spec.tls import makers

TestClient = stream.contract("tls", makers.Tls("client"))
TestServer = stream.contract("tls", makers.Tls("server"))
