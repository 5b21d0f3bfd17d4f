"""The tests of TLS handshakes can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import tls_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

HANDSHAKE = "tls/test_handshake.py::test_"
FAILURES = "tls/test_failures.py::test_"
TIMEOUTS = "tls/test_timeouts.py::test_"
CONTEXTS = "tls/test_contexts.py::test_"
EXTRA = "tls/test_extra_info.py::test_"
START_TLS = "tls/test_start_tls.py::test_"
INTERRUPTED = "tls/test_interrupted.py::test_"
CAUGHT_BY = {
    "SpecEarly": [
        HANDSHAKE + "a_server_calls_connection_made_once_the_handshake_is_complete[{}]",
        HANDSHAKE + "create_connection_returns_what_connection_made_was_given_once_the_handshake_is_complete[{}]",
        EXTRA + "everything_is_known_in_connection_made[{}]",
    ],
    "SpecTrusting": [
        Hang(FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-other-name]"),
        START_TLS + "server_hostname_is_what_the_certificate_is_matched_against[{}]",
    ],
    "SpecNameless": [
        CONTEXTS + "the_host_is_the_name_that_is_verified[{}]",
        Hang(FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-other-name]"),
    ],
    "SpecUnread": [
        Hang(HANDSHAKE + "data_in_one_segment_with_the_end_of_the_handshake_is_received[{}-server, TLSv1.3]"),
        Hang(START_TLS + "start_tls_reads_on_where_reading_was_paused_and_the_handshake_had_begun[{}]"),
    ],
    "SpecPatient": [Hang(TIMEOUTS + "the_time_is_that_of_the_whole_handshake_not_of_each_of_its_bytes[{}]")],
    "SpecTicking": [Hang(TIMEOUTS + "a_connection_outlives_the_time_that_its_handshake_had[{}]")],
    "SpecDeaf": [
        Hang(FAILURES + "a_peer_that_ends_its_side_only_ends_the_handshake[{}]"),
        Hang(START_TLS + "a_failure_is_raised_to_the_caller_and_closes_the_connection[{}-ends-ConnectionResetError]"),
    ],
    "SpecLeaky": [
        Hang(FAILURES + "a_server_closes_the_connection_of_a_client_that_sends_something_else[{}-garbage]"),
        Hang(FAILURES + "create_connection_raises_for_whatever_else_a_server_sends[{}-alert]"),
    ],
    "SpecTalkative": [
        FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-untrusted]",
        FAILURES + "a_server_closes_a_connection_that_comes_to_nothing_and_serves_the_next[{}-no-cipher]",
    ],
    "SpecReporting": [
        FAILURES + "create_connection_raises_for_whatever_else_a_server_sends[{}-garbage]",
        "tls/test_reports.py::test_a_client_in_debug_mode_raises_and_reports_nothing[{}]",
    ],
    "SpecWrapping": [
        FAILURES + "create_connection_raises_what_was_wrong_and_the_protocol_hears_nothing[{}-expired]",
    ],
    "SpecOwn": [
        CONTEXTS + "wrap_bio_of_a_subclass_makes_the_object_that_the_connection_uses[{}-server]",
        CONTEXTS + "a_class_for_ssl_objects_is_used_with_all_its_methods[{}-instance-client]",
        CONTEXTS + "a_client_resumes_the_session_that_its_context_brings_back[{}-TLSv1.2]",
    ],
    "SpecForgetful": [EXTRA + "the_facts_of_the_handshake_outlive_the_connection[{}]"],
    "SpecUnsure": [EXTRA + "compression_is_none_where_there_is_no_compression[{}-client]"],
    "SpecAgain": [START_TLS + "start_tls_returns_a_new_transport_with_which_the_protocol_goes_on[{}-server-tcp]"],
    "SpecHiding": [
        Hang(START_TLS + "the_protocol_loses_its_connection_to_the_failure[{}-ends-ConnectionResetError]"),
    ],
    "SpecHasty": [Hang(START_TLS + "plain_data_that_was_not_sent_yet_goes_out_before_the_handshake[{}-client]")],
    "SpecSuspended": [
        Hang(START_TLS + "start_tls_reads_on_where_reading_was_paused_and_the_handshake_had_begun[{}]"),
    ],
    "SpecTenacious": [
        Hang(INTERRUPTED + "whoever_gives_start_tls_up_closes_the_connection[{}-server-after 10 turns]"),
        Hang(INTERRUPTED + "whoever_gives_a_connection_up_in_its_handshake_closes_it[{}-after 1 turns]"),
    ],
    "SpecCopying": [
        CONTEXTS + "both_sides_know_the_protocol_that_alpn_selects[{}-server-TLSv1.3]",
        CONTEXTS + "one_context_serves_any_number_of_connections_and_may_be_changed_between_them[{}]",
        CONTEXTS + "secrets_are_written_to_the_context_s_key_log[{}-server]",
    ],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = HANDSHAKE + "a_server_shakes_hands_by_the_version_that_the_client_speaks[{}-TLSv1.3]"


class TestMutants(MutationTests):
    mutation = Mutation(tls_mutants, CAUGHT_BY, HARMLESS)
