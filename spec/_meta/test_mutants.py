"""The tests of callbacks and timers can fail: every mutant fails the clause that forbids what it does."""

from __future__ import annotations

from spec._meta import mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

CAUGHT_BY = {
    "SpecEarly": ["timers/test_deadlines.py::test_no_timer_is_early[{}-call_at]"],
    "SpecInline": ["callbacks/test_order.py::test_scheduling_does_not_call[{}]"],
    "SpecGreedy": ["callbacks/test_order.py::test_what_arrives_during_a_batch_is_read_while_the_next_ones_run[{}]"],
    "SpecLifo": ["callbacks/test_order.py::test_callbacks_are_called_in_the_order_they_were_scheduled[{}]"],
    "SpecOneContext": ["callbacks/test_contexts.py::test_callbacks_do_not_see_what_one_another_set[{}]"],
    "SpecDeaf": [Hang("callbacks/test_threadsafe.py::test_another_thread_wakes_an_idle_loop[{}]")],
    "SpecCatchAll": ["callbacks/test_errors.py::test_a_subclass_of_an_exit_is_an_exit[{}]"],
    "SpecHoarder": ["timers/test_cancel.py::test_a_million_cancelled_timers_hold_no_memory[{}]"],
    "SpecLeaky": ["callbacks/test_closing.py::test_closing_gives_every_descriptor_back[{}]"],
    "SpecCoarse": ["timers/test_deadlines.py::test_the_clock_advances_within_a_callback[{}]"],
    "SpecStopsTwice": ["callbacks/test_running.py::test_stopping_twice_does_not_stop_the_next_run[{}]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "callbacks/test_tasks.py::test_name_and_context_reach_the_task[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(mutants, CAUGHT_BY, HARMLESS)
