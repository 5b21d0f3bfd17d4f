"""A loop that is gone gives back everything it has of the kernel's."""

import asyncio
import gc
import os

import pytest

from tests import support


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.parametrize("closed", [True, False])
def test_loops_that_ran_leave_no_descriptor(*, closed: bool) -> None:
    def run() -> None:
        loop = support.new_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        if closed:
            loop.close()

    run()
    gc.collect()
    before = open_fds()
    for _ in range(50):
        run()
    gc.collect()
    assert open_fds() == before
