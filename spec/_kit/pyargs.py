"""The entry point of pytest: loads the plugin where an area is asked for by its name, `pytest --pyargs loopspec.tcp`.

pytest has read the options before it finds the `conftest.py` of an area that is named in this way, so the plugin, which
has options, comes too late from there. Loaded for whoever has the suite installed, it would add fixtures as common as
`loop` to tests that have nothing to do with it.
"""

from __future__ import annotations

import pytest

PACKAGE = __name__.partition(".")[0]


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    if "--pyargs" in args and any(arg == PACKAGE or arg.startswith(f"{PACKAGE}.") for arg in args):
        early_config.pluginmanager.import_plugin(f"{PACKAGE}._kit.plugin")
