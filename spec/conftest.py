"""Registers the suite's pytest plugin for everything below the suite."""

pytest_plugins = (f"{__package__}._kit.plugin",)
