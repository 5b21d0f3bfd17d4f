"""Programs and servers that people run, on the loop under test and on stock asyncio: `make test-real`."""
