"""Hooks of the plugin, for other plugins."""

from __future__ import annotations

import pytest

from .schedule import Terms


@pytest.hookspec(firstresult=True)
def pytest_loopspec_terms(item: pytest.Item, terms: Terms) -> Terms | None:
    """On which terms a test is to run, where not on these."""
