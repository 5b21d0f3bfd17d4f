"""Order of callbacks."""

from __future__ import annotations

from spec._kit import clause


@clause("callbacks.order.fifo")
def test_callbacks_run_in_the_order_they_were_scheduled(loop, tick):
    seen: list[int] = []
    for n in range(100):
        loop.call_soon(seen.append, n)
    tick()
    assert seen == list(range(100))
