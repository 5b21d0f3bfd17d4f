"""The stream contract, kept by TCP transports of connections made and of connections accepted."""

from spec._kit.contracts import stream
from spec.tcp import makers

TestConnected = stream.contract("tcp", makers.Connected())
TestAccepted = stream.contract("tcp", makers.Accepted())
