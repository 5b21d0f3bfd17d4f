"""The tests of insides, of watchers and of cycles can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import inside_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

QUEUE = "insides/test_queue.py::test_"
TIMERS = "insides/test_timers.py::test_"
WATCHERS = "readers_writers/test_registration.py::test_"
CALLBACKS = "readers_writers/test_callbacks.py::test_"
CAUGHT_BY = {
    "SpecMutePop": [TIMERS + "a_timer_that_was_taken_is_not_run[{}]"],
    "SpecCopiesTimers": [TIMERS + "the_list_of_timers_is_a_heap_of_what_is_set[{}]"],
    "SpecSkipsNonsense": [QUEUE + "what_is_no_handle_fails_in_its_turn_and_the_loop_goes_on[{}]"],
    "SpecOnceEach": [QUEUE + "a_handle_in_the_queue_twice_runs_twice[{}]"],
    "SpecFixedTurn": [QUEUE + "a_turn_that_somebody_put_in_its_place_is_run[{}-instance]"],
    "SpecForgetsHandler": ["insides/test_handles.py::test_the_handlers_of_signals_are_handles[{}]"],
    "SpecTakesAnything": ["insides/test_selector.py::test_nonsense_is_refused[{}]"],
    "SpecHidesState": ["insides/test_transports.py::test_a_transport_shows_its_state[{}-stream]"],
    "SpecSetsMode": [WATCHERS + "watching_leaves_the_mode_of_a_descriptor_as_it_is[{}-reader-True]"],
    "SpecShields": [Hang(CALLBACKS + "an_exception_reaches_the_handler_and_the_watcher_goes_on[{}-reader]")],
    "SpecDropsArguments": [WATCHERS + "the_callback_gets_exactly_the_arguments_given[{}-args2]"],
    "SpecSaysNothing": [WATCHERS + "removal_says_whether_that_direction_was_watched[{}]"],
    "SpecClosesWatched": [WATCHERS + "closing_the_loop_leaves_the_watched_fds_open[{}]"],
    "SpecCircular": ["tcp/test_cycles.py::test_a_connection_that_ended_in_order_leaves_no_reference_cycle[{}-close]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"


class TestMutants(MutationTests):
    mutation = Mutation(inside_mutants, CAUGHT_BY, HARMLESS)
