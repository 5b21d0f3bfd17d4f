"""The tests of sendfile, streams and executors can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import api_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

FILES = "sendfile/test_files.py::"
SENDING = "sendfile/test_sending.py::"
TRANSPORTS = "sendfile/test_transports.py::"
READING = "streams/test_reading.py::"
WRITING = "streams/test_writing.py::"
RUNNING = "executors/test_running.py::"
ENDING = "executors/test_ending.py::"
THREADS = "executors/test_threads.py::"
CAUGHT_BY = {
    "SpecRewinder": [
        FILES + "test_a_file_is_sent_to_its_end_and_the_number_of_its_bytes_returned[{}-70000-tcp-sendfile]",
        FILES + "test_after_an_error_the_position_tells_how_much_was_sent[{}-tcp-sock_sendfile]",
    ],
    "SpecReads": [
        FILES + "test_offset_zero_is_the_start_of_the_file_wherever_its_position_is[{}-sock_sendfile]",
        FILES + "test_without_fallback_what_is_no_regular_file_is_refused[{}-sock_sendfile]",
    ],
    "SpecUncounted": [
        Hang(FILES + "test_offset_and_count_say_which_part_is_sent[{}-1000-70000-70000-sendfile]"),
        FILES + "test_any_part_of_any_file_is_the_slice_of_its_content[{}]",
    ],
    "SpecUnstoppable": [
        SENDING + "test_what_a_cancelled_sendfile_sent_is_a_prefix_and_the_next_write_follows_it[{}-tcp-sendfile]",
        SENDING + "test_a_second_sendfile_follows_a_cancelled_one[{}-sock_sendfile]",
    ],
    "SpecHoldsUp": [
        Hang(SENDING + "test_it_waits_for_a_peer_that_does_not_read_while_the_loop_goes_on[{}-tcp-sock_sendfile]"),
        Hang(SENDING + "test_other_callbacks_run_while_a_fast_peer_reads[{}-sock_sendfile]"),
    ],
    "SpecPushesIn": [
        Hang(SENDING + "test_the_file_comes_between_what_is_written_before_and_after[{}-tcp-sendfile]"),
        Hang(TRANSPORTS + "test_what_is_written_meanwhile_is_refused_or_follows_the_file[{}-write]"),
    ],
    "SpecStaysPaused": [TRANSPORTS + "test_the_protocol_gets_what_the_peer_sent_meanwhile[{}-file]"],
    "SpecResumes": [TRANSPORTS + "test_a_transport_whose_reading_is_paused_stays_paused[{}-file]"],
    "SpecUnbounded": [
        WRITING + "test_drain_waits_down_to_the_low_mark[{}-tcp]",
        WRITING + "test_several_tasks_drain_at_once[{}-unix]",
    ],
    "SpecReadsOn": [Hang(READING + "test_over_twice_the_limit_reading_pauses_until_it_is_read[{}-tcp]")],
    "SpecHidesErrors": [
        READING + "test_a_waiting_read_raises_the_reset_and_so_does_every_later_one[{}-readline]",
        WRITING + "test_wait_closed_raises_what_ended_the_connection[{}]",
    ],
    "SpecHastyClose": [WRITING + "test_wait_closed_returns_when_all_was_sent_and_the_socket_is_closed[{}-tcp]"],
    "SpecHastyEof": [
        WRITING + "test_write_eof_ends_the_writing_half_behind_the_data_and_reading_goes_on[{}-tcp]",
    ],
    "SpecDropsByte": [
        READING + "test_readexactly_waits_for_all_of_it[{}-tcp]",
        READING + "test_read_without_a_number_returns_all_up_to_the_end[{}-args0-unix]",
    ],
    "SpecHandsOnContext": [RUNNING + "test_run_in_executor_does_not_hand_on_the_context[{}]"],
    "SpecLazy": [Hang(RUNNING + "test_the_function_is_submitted_at_once_and_a_future_of_the_loop_returned[{}]")],
    "SpecUncancelled": [RUNNING + "test_a_function_that_is_cancelled_before_it_begins_never_runs[{}]"],
    "SpecSwallows": [
        RUNNING + "test_the_exception_itself_is_raised_where_it_is_awaited[{}]",
        RUNNING + "test_base_exceptions_reach_who_awaits_and_the_threads_live_on[{}-Strange]",
    ],
    "SpecImpatient": [
        ENDING + "test_the_loop_goes_on_while_the_default_executor_is_shut_down[{}]",
        ENDING + "test_the_end_of_a_run_waits_for_the_threads[{}]",
    ],
    "SpecLosesCalls": [THREADS + "test_thousands_of_calls_from_many_threads_are_all_made[{}]"],
    "SpecKeepsTheGil": [RUNNING + "test_a_thread_gets_on_beside_a_chain_of_callbacks_that_never_ends[{}]"],
    "SpecSleepsThrough": [
        Hang(RUNNING + "test_a_result_wakes_an_idle_loop[{}]"),
        Hang(THREADS + "test_a_call_that_comes_as_the_loop_goes_to_sleep_wakes_it[{}]"),
    ],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = READING + "test_readexactly_of_a_negative_number_raises[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(api_mutants, CAUGHT_BY, HARMLESS)
