"""The tests of timers can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import timer_mutants
from spec._meta.mutation import Mutation, MutationTests

ORDER = "timers/test_order.py::test_"
HANDLES = "timers/test_handles.py::test_"
CAUGHT_BY = {
    "SpecTimersFirst": [ORDER + "a_due_timer_comes_behind_ready_callbacks[{}]"],
    "SpecNoPast": [ORDER + "negative_delays_are_in_the_order_of_their_deadlines[{}]"],
    "SpecSoon": [HANDLES + "scheduling_returns_a_timer_handle[{}-0-call_later]"],
    "SpecFloats": [HANDLES + "when_is_the_very_number_that_was_given[{}-1152921504606846977]"],
    "SpecWraps": [HANDLES + "a_delay_of_ages_does_not_come_early[{}-8589934.592-call_later]"],
    "SpecKeeps": ["timers/test_cancel.py::test_cancelling_lets_callback_and_arguments_go_at_once[{}]"],
    "SpecMadeContext": [HANDLES + "without_a_context_the_current_one_is_copied[{}-call_at]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "timers/test_errors.py::test_sleep_zero_gives_way_once[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(timer_mutants, CAUGHT_BY, HARMLESS)
