"""Registers the suite's pytest plugin for everything below `spec/`."""

pytest_plugins = ("spec._kit.plugin",)
