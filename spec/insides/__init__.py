"""What a loop that says it is an `asyncio.BaseEventLoop` has inside."""
