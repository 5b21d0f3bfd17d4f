"""Subprocesses: starting, pipes, exit, signals, communicate, closing."""
