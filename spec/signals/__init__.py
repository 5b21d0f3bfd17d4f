"""Signals: handlers, their delivery, what they leave behind, Ctrl-C."""
