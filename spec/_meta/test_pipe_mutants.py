"""The tests of pipes, streams and sockets can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import pipe_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

CONNECT = "pipes/test_connect.py::test_"
READING = "pipes/test_reading.py::test_"
WRITING = "pipes/test_writing.py::test_"
STREAMS = "streams/test_writing.py::test_"
RECEIVING = "sockets/test_receiving.py::test_"
DATAGRAMS = "sockets/test_datagrams.py::test_"
CONNECTING = "sockets/test_connecting.py::test_"
CAUGHT_BY = {
    "SpecClosesRefused": [CONNECT + "a_regular_file_is_refused_with_value_error_and_left_open[{}-read]"],
    "SpecLeavesBlocking": [CONNECT + "the_pipe_is_made_non_blocking[{}-write]"],
    "SpecClosesForFactory": [CONNECT + "what_the_factory_raises_is_raised_and_the_pipe_stays_open[{}-read]"],
    "SpecEndsInline": [READING + "close_leads_to_connection_lost_and_closes_the_pipe_afterwards[{}]"],
    "SpecBreaksMutely": [WRITING + "a_reader_that_goes_with_data_queued_is_a_broken_pipe[{}-False]"],
    "SpecReportsBroken": [WRITING + "writing_to_a_reader_that_has_gone_ends_the_transport_without_a_report[{}]"],
    "SpecEofInTurn": [READING + "a_transport_whose_data_received_raised_goes_on_reading[{}]"],
    "SpecNeverResumes": [
        Hang("streams/test_reading.py::test_over_twice_the_limit_reading_pauses_until_it_is_read[{}-tcp]")
    ],
    "SpecResumesEmpty": [
        "tcp/test_contract.py::TestConnected::test_resume_writing_does_not_wait_until_nothing_is_left[{}]"
    ],
    "SpecAbortsMutely": [Hang(STREAMS + "an_aborted_stream_wakes_those_who_drain[{}]")],
    "SpecNeverClosing": [STREAMS + "writing_and_draining_after_close_ends_without_another_await[{}]"],
    "SpecNoAddresses": [STREAMS + "the_writer_tells_of_its_socket[{}]"],
    "SpecResetIsEnd": ["streams/test_reading.py::test_a_cancelled_read_does_not_hide_the_reset[{}]"],
    "SpecCorks": [Hang(STREAMS + "a_write_is_sent_without_a_drain[{}-tcp]")],
    "SpecEofTwice": [STREAMS + "after_write_eof_a_write_raises[{}]"],
    "SpecTakesMore": [Hang(RECEIVING + "recv_returns_at_most_n_bytes_and_the_next_one_the_rest[{}-tcp]")],
    "SpecGivesWay": [RECEIVING + "what_can_be_done_at_once_lets_no_other_callback_run[{}-recv]"],
    "SpecAcceptsBlocking": [CONNECTING + "an_accepted_connection_is_a_socket_ready_for_use[{}]"],
    "SpecWholeBuffer": [DATAGRAMS + "recvfrom_into_receives_at_most_nbytes[{}-there]"],
    "SpecSkipsEmpty": [DATAGRAMS + "sendto_sends_one_datagram_and_returns_its_size[{}-b'']"],
    "SpecNumbersOnly": [CONNECTING + "connect_resolves_a_name[{}]"],
    "SpecLeavesFds": ["sockets/test_cancelling.py::test_a_receive_can_follow_a_cancelled_one_at_once[{}-recv]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "sockets/test_sending.py::test_many_small_sends_arrive_in_order[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(pipe_mutants, CAUGHT_BY, HARMLESS)
