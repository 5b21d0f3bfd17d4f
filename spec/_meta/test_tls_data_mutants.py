"""The tests of what TLS does after the handshake can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import tls_data_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

CONTRACT = "tls/test_contract.py::TestClient::test_"
DATA = "tls/test_data.py::test_"
FLOW = "tls/test_flow.py::test_"
CLOSING = "tls/test_closing.py::test_"
ENDS = "tls/test_eof.py::test_"
CALLBACKS = "tls/test_callbacks.py::test_"
MEMORY = "tls/test_memory.py::test_"
MANY = "tls/test_many.py::test_"
CAUGHT_BY = {
    "SpecOneRecord": [
        Hang(DATA + "records_that_come_in_one_segment_are_all_delivered[{}-TLSv1.3-Recorder-2]"),
        Hang(ENDS + "data_and_close_notify_of_one_segment_come_in_order[{}-client]"),
    ],
    "SpecOneBuffer": [
        Hang(DATA + "a_record_larger_than_the_buffer_of_a_protocol_is_delivered_whole[{}-100]"),
        Hang(CALLBACKS + "a_buffered_protocol_gets_the_data_whole_whatever_its_buffer[{}-client-7]"),
    ],
    "SpecDeferred": [
        CONTRACT + "a_buffer_may_be_reused_as_soon_as_write_has_returned[{}]",
        CLOSING + "the_peer_gets_close_notify_behind_the_data[{}-client-TLSv1.3]",
    ],
    "SpecUnstoppable": [
        FLOW + "nothing_is_delivered_while_reading_is_paused[{}-client-Recorder]",
        FLOW + "what_was_decrypted_already_waits_too[{}-10]",
    ],
    "SpecInlineResume": [FLOW + "pausing_again_before_the_loop_goes_on_holds_back_what_waits[{}]"],
    "SpecBottomless": [FLOW + "a_peer_that_sends_to_a_paused_transport_is_stopped[{}-client]"],
    "SpecUnlimited": [
        FLOW + "a_peer_that_does_not_read_pauses_the_writer_until_it_reads[{}-client]",
        Hang(ENDS + "drain_waits_for_a_peer_that_does_not_read[{}]"),
    ],
    "SpecHalfDuplex": [Hang(FLOW + "data_is_received_while_writing_is_paused[{}-Recorder]")],
    "SpecRash": [FLOW + "the_peers_end_comes_behind_its_data_when_reading_is_resumed[{}-client-0-cut]"],
    "SpecRude": [
        CLOSING + "the_peer_gets_close_notify_behind_the_data[{}-client-TLSv1.3]",
        CLOSING + "a_plain_ssl_socket_sees_a_clean_end[{}-server]",
        ENDS + "a_close_notify_is_the_end_and_is_answered[{}-Recorder-client-TLSv1.3]",
    ],
    "SpecHastyClose": [
        CLOSING + "connection_lost_is_called_when_the_peer_has_answered_close_notify[{}-client-TLSv1.3]",
    ],
    "SpecEndless": [
        Hang(CLOSING + "a_peer_that_does_not_answer_is_waited_for_no_longer_than_the_shutdown_timeout[{}-client]"),
        Hang(CLOSING + "the_shutdown_timeout_ends_a_flush_that_does_not_get_on_too[{}]"),
    ],
    "SpecStillDue": [
        CLOSING + "the_timeout_of_a_shutdown_that_was_answered_is_gone[{}]",
        CLOSING + "connection_lost_is_told_of_the_timeout[{}]",
    ],
    "SpecPolite": [CLOSING + "abort_sends_no_close_notify[{}-client-5]"],
    "SpecPersistent": [
        Hang(ENDS + "a_true_answer_to_eof_does_not_keep_the_connection_open_and_is_warned_of[{}-client-Recorder]"),
        Hang(ENDS + "a_close_notify_is_the_end_and_is_answered[{}-Buffered-server-TLSv1.2]"),
    ],
    "SpecNumb": [
        Hang(ENDS + "a_stream_that_ends_without_close_notify_ends_the_connection[{}-client-TLSv1.3-5]"),
        Hang(ENDS + "a_reader_gets_what_came_before_a_stream_was_cut_short[{}]"),
    ],
    "SpecMute": [ENDS + "a_stream_cut_short_is_told_as_an_end_like_any_other[{}-client-Recorder]"],
    "SpecLenient": [
        Hang(ENDS + "bytes_that_are_no_record_of_the_peer_end_the_connection[{}-client-TLSv1.3-a changed bit]"),
        Hang(ENDS + "garbage_that_comes_while_reading_is_paused_ends_the_connection_when_it_is_resumed[{}]"),
    ],
    "SpecAlarmed": [
        ENDS + "bytes_that_are_no_record_of_the_peer_end_the_connection[{}-server-TLSv1.2-plain text]",
    ],
    "SpecForgiving": [
        Hang(
            CALLBACKS + "an_exception_in_a_callback_is_reported_once_and_ends_the_connection_with_it"
            "[{}-client-data_received-Boom]"
        ),
        Hang(CALLBACKS + "a_thing_that_is_no_writable_buffer_is_reported_and_ends_the_connection[{}-int]"),
    ],
    "SpecDouble": [
        CLOSING + "close_and_abort_from_within_any_callback_end_the_connection_once[{}-data_received-abort]",
        MANY + "half_of_the_clients_break_off_and_nothing_is_left[{}]",
    ],
    "SpecStrange": [CALLBACKS + "callbacks_run_in_the_context_that_made_the_transport[{}-client-Recorder]"],
    "SpecHoarding": [
        MEMORY + "connections_one_after_the_other_take_no_more_memory[{}-server-Recorder]",
    ],
    "SpecAttentive": [MEMORY + "an_ended_connection_is_collected[{}-client-cut]"],
    "SpecClinging": [
        Hang(MANY + "half_of_the_clients_break_off_and_nothing_is_left[{}]"),
        Hang(MANY + "half_of_the_servers_break_off_and_each_connection_is_made_or_raises[{}]"),
    ],
    "SpecUnrestored": [
        Hang("tls/test_sendfile.py::test_what_comes_meanwhile_is_delivered_and_the_protocol_is_as_before[{}]"),
    ],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = DATA + "what_goes_out_comes_back_whole[{}-client-TLSv1.3-1]"


class TestMutants(MutationTests):
    mutation = Mutation(tls_data_mutants, CAUGHT_BY, HARMLESS)
