"""Streams: `asyncio.open_connection()`, `asyncio.start_server()`, and what they give."""
