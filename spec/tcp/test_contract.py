"""The stream contract, kept by TCP transports of connections made and of connections accepted."""

from .._kit.contracts import stream
from . import makers

TestConnected = stream.contract("tcp", makers.Connected())
TestAccepted = stream.contract("tcp", makers.Accepted())
