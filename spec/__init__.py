"""Conformance suite for asyncio event loops; `python -m spec --help`, or spec/README.md."""
