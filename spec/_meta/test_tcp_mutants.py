"""The tests of TCP transports can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import tcp_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

CONNECTED = "tcp/test_contract.py::TestConnected::test_"
ACCEPTED = "tcp/test_contract.py::TestAccepted::test_"
SOCKETS = "tcp/test_sockets.py::test_"
CAUGHT_BY = {
    "SpecLostInline": [
        CONNECTED + "connection_lost_is_not_called_before_close_returns[{}-close]",
        ACCEPTED + "connection_lost_is_not_called_inside_a_callback_that_closes[{}-close]",
    ],
    "SpecNagle": [SOCKETS + "nagles_algorithm_is_off_at_both_ends[{}]"],
    "SpecResumesEarly": [
        CONNECTED + "resume_writing_is_called_once_the_buffer_is_at_or_under_the_low_limit[{}-5000]",
    ],
    "SpecPausesEarly": [CONNECTED + "pause_writing_is_called_strictly_over_the_high_limit[{}]"],
    "SpecPausesLater": [CONNECTED + "pause_writing_is_called_before_write_returns[{}]"],
    "SpecLimitsLater": [Hang(CONNECTED + "lowering_the_limit_under_what_is_buffered_pauses_at_once[{}]")],
    "SpecTakesAnyLimits": [
        CONNECTED + "limits_that_do_not_fit_raise_value_error_and_change_nothing[{}-{'high': 10, 'low': 11}]"
    ],
    "SpecCountsChunks": [Hang(CONNECTED + "the_buffer_size_shrinks_to_zero_as_the_peer_reads[{}]")],
    "SpecAllAtOnce": [CONNECTED + "thousands_of_small_writes_behind_a_stalled_peer_all_arrive[{}]"],
    "SpecOldProtocol": [Hang(ACCEPTED + "flow_control_goes_to_the_protocol_that_is_set_by_then[{}]")],
    "SpecSpins": [ACCEPTED + "a_kept_open_transport_does_not_spin_on_eof[{}]"],
    "SpecEndsAll": [ACCEPTED + "a_true_answer_to_eof_keeps_the_write_side_open[{}-True]"],
    "SpecDropsAtEof": [CONNECTED + "a_transport_closed_by_eof_first_flushes_what_is_queued[{}]"],
    "SpecMuteEof": [
        CONNECTED + "all_data_is_delivered_before_eof[{}]",
        CONNECTED + "eof_while_paused_is_reported_after_resume[{}]",
    ],
    "SpecForgetsPeer": [SOCKETS + "extra_info_has_the_socket_and_both_addresses[{}]"],
    "SpecNoContext": [
        CONNECTED + "callbacks_run_in_the_context_that_made_the_transport[{}-Recorder]",
        "tcp/test_server.py::test_accepted_connections_run_in_the_context_of_create_server[{}]",
    ],
    "SpecKeepsAll": [CONNECTED + "a_closed_transport_and_its_protocol_are_collected[{}-abort]"],
    "SpecLosesReason": [CONNECTED + "an_exception_in_a_callback_is_reported_and_ends_the_connection[{}-data_received]"],
    "SpecSilent": [ACCEPTED + "an_exception_in_a_callback_is_reported_and_ends_the_connection[{}-eof_received]"],
    "SpecPatient": [Hang(CONNECTED + "an_exception_in_data_received_aborts_rather_than_flushes[{}]")],
    "SpecCatchesExits": [
        Hang(CONNECTED + "system_exit_and_keyboard_interrupt_leave_run_forever[{}-data_received-SystemExit]")
    ],
    "SpecSaysItReads": [CONNECTED + "is_reading_tells_pauses_and_closing[{}]"],
    "SpecLastWord": [CONNECTED + "no_data_and_no_eof_is_delivered_after_close_or_abort[{}-close]"],
    "SpecNoHalves": [CONNECTED + "data_is_still_received_after_write_eof[{}]"],
    "SpecSwallowsLate": [CONNECTED + "write_after_write_eof_raises_runtime_error_and_sends_nothing[{}-0]"],
    "SpecFillsBuffer": [CONNECTED + "a_buffered_protocol_gets_the_data_whole_whatever_its_buffer[{}-4096]"],
    "SpecEmptyIsEnd": [CONNECTED + "an_empty_buffer_is_an_error_and_ends_the_connection[{}]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = CONNECTED + "one_write_reaches_the_peer_whole[{}-100]"


class TestMutants(MutationTests):
    mutation = Mutation(tcp_mutants, CAUGHT_BY, HARMLESS)
