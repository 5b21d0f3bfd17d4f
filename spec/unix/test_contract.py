"""The stream contract, kept by Unix transports of connections made and of connections accepted."""

from .._kit.contracts import stream
from . import makers

TestConnected = stream.contract("unix", makers.Connected())
TestAccepted = stream.contract("unix", makers.Accepted())
