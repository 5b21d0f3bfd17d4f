"""The tests of look-ups, errors, lifecycles and insides can fail: every mutant fails those that forbid what it does."""

from __future__ import annotations

from spec._meta import life_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

LOOKUPS = "dns/test_lookups.py::test_"
ADDRESSES = "dns/test_getaddrinfo.py::test_"
HANDLERS = "errors/test_handlers.py::test_"
DEFAULT = "errors/test_default_handler.py::test_"
CLOSE = "lifecycle/test_close.py::test_"
REUSE = "lifecycle/test_reuse.py::test_"
THREADS = "lifecycle/test_threads.py::test_"
QUEUE = "insides/test_queue.py::test_"
CAUGHT_BY = {
    "SpecBlocks": [Hang(LOOKUPS + "callbacks_and_timers_run_while_a_lookup_waits[{}-getaddrinfo]")],
    "SpecOwnThreads": [LOOKUPS + "names_are_looked_up_in_the_default_executor[{}-getaddrinfo]"],
    "SpecPlainNumbers": [ADDRESSES + "families_and_types_are_enumerations[{}-localhost]"],
    "SpecNoFlags": [ADDRESSES + "a_service_name_where_numbers_are_asked_for_raises_gaierror[{}-localhost]"],
    "SpecNumbersOnly": ["dns/test_getnameinfo.py::test_the_service_is_named_for_its_protocol[{}-tcp-22]"],
    "SpecHidesReason": [ADDRESSES + "an_unknown_name_raises_gaierror[{}]"],
    "SpecEagerLookup": [
        ADDRESSES + "getaddrinfo_returns_a_coroutine_that_does_nothing_before_it_is_awaited[{}]",
    ],
    "SpecStubborn": [
        Hang(LOOKUPS + "a_lookup_that_waits_can_be_cancelled_and_its_late_result_is_dropped[{}-getaddrinfo]")
    ],
    "SpecAddressesOnly": [LOOKUPS + "connections_are_made_where_getaddrinfo_of_the_loop_says[{}]"],
    "SpecRaisesOn": [HANDLERS + "the_log_of_a_failing_handler_has_its_exception_and_the_first_context[{}]"],
    "SpecForgetsFirst": [HANDLERS + "the_log_of_a_failing_handler_has_its_exception_and_the_first_context[{}]"],
    "SpecTerse": [DEFAULT + "the_other_keys_follow_by_name_a_line_each_with_their_repr[{}]"],
    "SpecAlwaysTraces": [DEFAULT + "without_an_exception_there_is_no_traceback[{}-context0]"],
    "SpecOneHandler": [HANDLERS + "each_loop_has_a_handler_of_its_own[{}]"],
    "SpecPlainContext": ["errors/test_futures.py::test_the_handler_runs_in_the_context_of_the_task[{}]"],
    "SpecCopiesError": [HANDLERS + "run_until_complete_raises_the_exception_itself_with_its_traceback[{}]"],
    "SpecUnfinished": [
        "errors/test_futures.py::test_a_generator_that_fails_while_shut_down_is_reported_and_costs_no_other[{}]",
    ],
    "SpecFastIsSlow": ["errors/test_debug.py::test_what_is_slow_may_be_changed_while_the_loop_runs[{}]"],
    "SpecAnonymous": ["errors/test_debug.py::test_the_repr_of_a_loop_tells_its_state[{}]"],
    "SpecWaitsOnClose": [Hang(CLOSE + "close_does_not_wait_for_the_executor[{}]")],
    "SpecTellsOnClose": [CLOSE + "the_protocols_of_open_connections_are_not_called_any_more[{}]"],
    "SpecForkBlind": ["lifecycle/test_fork.py::test_no_loop_runs_in_the_child[{}]"],
    "SpecThreadBound": [
        THREADS + "a_loop_is_closed_in_another_thread_than_it_ran_in[{}]",
        THREADS + "a_loop_is_made_run_and_closed_in_three_threads[{}]",
    ],
    "SpecForgetsBetween": [Hang(REUSE + "a_task_goes_on_in_the_next_run_where_it_was[{}]")],
    "SpecLeaksRuns": [REUSE + "a_thousand_runs_leave_neither_descriptors_nor_threads[{}]"],
    "SpecStopsLater": [REUSE + "a_future_that_outlived_its_run_stops_no_later_one[{}]"],
    "SpecNoGenerators": ["lifecycle/test_runner.py::test_open_asynchronous_generators_are_closed_within_the_loop[{}]"],
    "SpecWorksClosed": [CLOSE + "coroutines_of_a_closed_loop_raise_and_leave_nothing[{}-run_in_executor]"],
    "SpecCloses": [THREADS + "a_loop_that_runs_elsewhere_is_neither_run_nor_closed[{}]"],
    "SpecQuietlyGone": [CLOSE + "the_warning_of_an_unclosed_loop_has_it_as_its_source[{}]"],
    "SpecTwoTurns": [QUEUE + "a_turn_runs_what_is_ready_and_returns[{}]"],
    "SpecOwnQueue": [QUEUE + "a_queue_that_somebody_put_in_its_place_is_the_queue[{}]"],
    "SpecOwnClock": [
        "insides/test_timers.py::test_timers_go_by_a_clock_that_somebody_put_in_the_place_of_the_loops[{}-instance]",
    ],
    "SpecFindsOnce": ["insides/test_selector.py::test_what_was_found_and_not_processed_is_found_again[{}]"],
    "SpecNoHandle": ["insides/test_handles.py::test_a_watcher_by_its_private_name_is_a_handle[{}]"],
    "SpecSealed": ["insides/test_transports.py::test_a_writer_writes_by_the_method_that_its_transport_has[{}]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"


class TestMutants(MutationTests):
    mutation = Mutation(life_mutants, CAUGHT_BY, HARMLESS)
