"""What user code may still ask of a loop while the interpreter ends."""

import subprocess
import sys

import pytest

PROGRAM = """
import builtins, sys, tokioloop

class Last:
    def __init__(self, loop):
        self.loop = loop

    def __del__(self):
        try:
            self.loop.set_debug({debug})
            timer = self.loop.call_later(1, print)
            timer.cancel()
            repr((timer, self.loop.call_soon(print)))
        except RuntimeError:
            pass

{keeper} = Last(tokioloop.new_event_loop())
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("keeper", ["keep", "builtins.keep", "sys.modules['keep']"])
def test_a_finalizer_may_schedule_callbacks_while_the_interpreter_ends(keeper, debug):
    program = PROGRAM.format(keeper=keeper, debug=debug)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
