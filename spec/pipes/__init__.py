"""Pipes, FIFOs, terminals and sockets as transports of one direction."""
