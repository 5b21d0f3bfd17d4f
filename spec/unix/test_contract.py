"""The stream contract, kept by Unix transports of connections made and of connections accepted."""

from spec._kit.contracts import stream
from spec.unix import makers

TestConnected = stream.contract("unix", makers.Connected())
TestAccepted = stream.contract("unix", makers.Accepted())
