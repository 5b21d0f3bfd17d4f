"""The tests of watchers, sockets, pipes and servers can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import io_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

WATCHERS = "readers_writers/"
SOCKETS = "sockets/"
REUSE = SOCKETS + "test_reuse.py::"
PIPES = "pipes/"
CAUGHT_BY = {
    "SpecLate": [
        WATCHERS
        + "test_callbacks.py::test_a_reader_is_called_in_the_iteration_behind_the_one_that_made_it_ready[{}-itself-1]",
        SOCKETS
        + "test_receiving.py::test_a_waiting_operation_ends_in_the_second_iteration_behind_the_event[{}-1-recv]",
        "tcp/test_contract.py::TestConnected::test_what_arrives_is_there_two_turns_later_and_the_end_three[{}-7]",
        "tcp/test_echo.py::test_what_one_end_writes_the_other_end_has_two_turns_later[{}-7]",
        "tcp/test_create_server.py::test_a_client_that_waited_has_its_transport_three_turns_later[{}]",
        "tcp/test_create_server.py::test_what_clients_did_between_runs_is_found_by_the_first_turns_of_the_next[{}]",
        "udp/test_datagrams.py::test_a_datagram_is_received_in_the_turn_behind_the_one_it_came_in[{}-7]",
        "pipes/test_reading.py::test_data_that_waited_is_received_in_the_first_turn[{}-7]",
        "pipes/test_reading.py::test_data_that_waited_outruns_a_close_by_the_end_of_an_older_connection[{}]",
    ],
    "SpecEdge": [
        WATCHERS + "test_readiness.py::test_a_reader_is_called_until_all_data_is_read[{}]",
        WATCHERS + "test_model.py::test_watchers_behave_like_the_model[{}]",
    ],
    "SpecEager": [
        WATCHERS + "test_readiness.py::test_a_reader_of_an_idle_listener_is_not_called_before_a_client_connects[{}]",
        WATCHERS + "test_model.py::test_watchers_behave_like_the_model[{}]",
    ],
    "SpecOverdue": [
        WATCHERS + "test_registration.py::test_of_two_ready_readers_that_remove_each_other_one_is_called[{}]",
    ],
    "SpecOneWay": [WATCHERS + "test_readiness.py::test_removing_one_direction_leaves_the_other[{}-reader]"],
    "SpecChainFirst": [
        WATCHERS + "test_callbacks.py::test_a_chain_that_never_ends_does_not_starve_a_ready_watcher[{}-tasks-reader]",
        SOCKETS + "test_together.py::test_a_chain_that_never_ends_does_not_starve_an_operation[{}-callbacks-recv]",
    ],
    "SpecTruncates": [SOCKETS + "test_receiving.py::test_recv_returns_a_large_message_whole[{}-datagram-False-300000]"],
    "SpecByNumber": [
        Hang(
            SOCKETS
            + "test_reuse.py::test_a_new_socket_that_has_data_at_once_is_read_though_the_old_one_was_drained[{}]"
        ),
    ],
    "SpecGreedyCancel": [
        Hang(SOCKETS + "test_cancelling.py::test_what_arrives_after_a_cancellation_is_for_the_next_receive[{}-1-recv]"),
        Hang(SOCKETS + "test_model.py::test_receives_behave_like_the_model[{}]"),
    ],
    "SpecShortSend": [
        SOCKETS + "test_sending.py::test_everything_is_sent_to_a_slow_reader[{}-8000000-tcp]",
        SOCKETS + "test_model.py::test_sends_behave_like_the_model[{}-unix]",
    ],
    "SpecAtOnce": [SOCKETS + "test_checks.py::test_the_socket_is_checked_when_the_operation_is_awaited[{}]"],
    "SpecUnawarePipe": [
        Hang(PIPES + "test_writing.py::test_a_reader_that_goes_is_noticed_though_nothing_is_written[{}-pipe]"),
        Hang(PIPES + "test_writing.py::test_a_pipe_that_nobody_reads_from_the_start_ends_the_transport[{}]"),
    ],
    "SpecHastyPipe": [
        PIPES + "test_writing.py::test_write_eof_sends_what_is_queued_and_closes_the_transport[{}-12582912]",
        PIPES + "test_contract.py::TestWriting::test_queued_data_is_sent_before_connection_lost[{}]",
    ],
    "SpecStayingPipe": [
        Hang(PIPES + "test_reading.py::test_the_end_closes_the_transport_whatever_eof_received_answers[{}-True]"),
    ],
    "SpecSquatter": [
        "unix/test_server.py::test_another_file_at_the_path_is_left_alone_and_raises_os_error[{}-file]",
    ],
    "SpecCommonContext": [
        "tcp/test_server.py::test_what_the_factory_sets_is_seen_by_the_callbacks_of_its_connection_only[{}]",
    ],
    "SpecKeeper": [SOCKETS + "test_checks.py::test_the_loop_keeps_neither_the_socket_nor_the_buffer[{}-waited]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "sockets/test_receiving.py::test_recv_returns_bytes_that_were_there_before[{}-tcp]"


class TestMutants(MutationTests):
    mutation = Mutation(io_mutants, CAUGHT_BY, HARMLESS)
