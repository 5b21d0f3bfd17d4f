"""Random use of signal handlers against a model.

The model: which handler each signal has, and the signals that came since the loop last looked, in order. When the loop
runs, each of them is a call of the handler that its signal has by then, or of none; nothing else is a call.
"""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st

from .._kit import clause
from .._kit.seeds import explored
from .helpers import send, wakeup_fd

NUMBERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCHLD, signal.SIGRTMIN]

numbers = st.sampled_from(NUMBERS)
changes = st.one_of(
    st.tuples(st.just("add"), numbers),
    st.tuples(st.just("send"), numbers, st.integers(1, 20)),
    st.tuples(st.just("remove"), numbers),
)
operations = st.one_of(
    changes,
    # The same within a callback.
    st.tuples(st.just("within"), st.lists(changes, max_size=6)),
    st.just(("run",)),
    st.just(("another loop",)),
)


class Machine:
    """A loop and the model."""

    def __init__(self, new_loop):
        self.new_loop = new_loop
        self.loop = new_loop()
        self.handlers = {}
        self.pending = []
        self.calls = []
        self.made = 0

    def apply(self, operation):
        match operation:
            case "add", number:
                self.made += 1
                self.loop.add_signal_handler(number, self.calls.append, (number, self.made))
                self.handlers[number] = self.made
            case "remove", number:
                assert self.loop.remove_signal_handler(number) is (number in self.handlers)
                self.handlers.pop(number, None)
                assert signal.getsignal(number) == signal.SIG_DFL
            case "send", number, count if number in self.handlers and len(self.pending) < 200:
                for _ in range(count):
                    send(number)
                    self.pending.append(number)
            case "within", inner:
                self.loop.call_soon(self.apply_all, inner)
                self.run()
            case ("run",):
                self.run()
            case ("another loop",):
                self.loop.close()
                assert all(signal.getsignal(number) == signal.SIG_DFL for number in NUMBERS)
                assert wakeup_fd() == -1
                self.loop = self.new_loop()
                self.handlers.clear()
                self.pending.clear()

    def apply_all(self, inner):
        for operation in inner:
            self.apply(operation)

    def run(self):
        for _ in range(5):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        expected = [(number, self.handlers[number]) for number in self.pending if number in self.handlers]
        self.pending.clear()
        assert self.calls == expected
        self.calls.clear()


@clause("signals.delivery.any-program")
@explored(150)
@given(program=st.lists(operations, max_size=20))
def test_handlers_behave_like_the_model(new_loop, program):
    machine = Machine(new_loop)
    try:
        for operation in program:
            machine.apply(operation)
        machine.run()
    finally:
        machine.loop.close()
