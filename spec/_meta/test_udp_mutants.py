"""The tests of datagram endpoints can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import udp_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

DATAGRAMS = "udp/test_datagrams.py::test_"
CREATE = "udp/test_create.py::test_"
ERRORS = "udp/test_errors.py::test_"
FLOW = "udp/test_flow.py::test_"
CLOSE = "udp/test_close.py::test_"
FAIRNESS = "udp/test_fairness.py::test_"
CAUGHT_BY = {
    "SpecCutsShort": [DATAGRAMS + "datagrams_of_every_size_up_to_the_largest_go_both_ways_whole[{}-9217]"],
    "SpecEmptyEnds": [Hang(DATAGRAMS + "an_empty_datagram_is_received_as_empty_bytes[{}-True]")],
    "SpecSendsNothing": [Hang(DATAGRAMS + "an_empty_datagram_is_sent[{}-bytes-False]")],
    "SpecOneBuffer": [DATAGRAMS + "what_was_received_stays_as_it_was[{}]"],
    "SpecRefusalEnds": [Hang(ERRORS + "an_endpoint_goes_on_in_both_directions_after_a_refusal[{}]")],
    "SpecRefusalMute": [Hang(ERRORS + "a_refusal_is_told_to_an_endpoint_that_sends_nothing_more[{}]")],
    "SpecRaisesTooLarge": [ERRORS + "a_datagram_that_is_too_large_is_told_to_error_received[{}-65508]"],
    "SpecAnyAddress": [DATAGRAMS + "a_connected_endpoint_takes_its_remote_address_or_none_and_no_other[{}]"],
    "SpecViewsQueued": [FLOW + "a_queued_datagram_is_a_copy_of_the_callers_buffer[{}]"],
    "SpecDropsQueue": [Hang(CLOSE + "what_waits_is_sent_before_connection_lost[{}]")],
    "SpecPauseLate": [
        FLOW + "pause_writing_is_called_before_the_sendto_that_crosses_the_high_limit_returns[{}]",
    ],
    "SpecHeadersFree": [Hang(FLOW + "empty_datagrams_count_so_that_a_queue_of_them_pauses[{}]")],
    "SpecLastIn": [FLOW + "what_waits_is_sent_in_order_once_there_is_room[{}]"],
    "SpecDrains": [Hang(FAIRNESS + "a_callback_that_is_due_does_not_wait_for_thousands_of_datagrams[{}]")],
    "SpecOneContext": [DATAGRAMS + "callbacks_see_the_context_of_the_moment_the_endpoint_was_created[{}]"],
    "SpecSharesPort": [CREATE + "an_endpoint_shares_its_address_with_no_other_that_did_not_ask_to[{}]"],
    "SpecBroadcasts": [CREATE + "broadcasting_is_allowed_only_where_it_was_asked_for[{}-None]"],
    "SpecIgnoresFlags": [CREATE + "flags_are_passed_to_getaddrinfo[{}]"],
    "SpecTakesStreams": [CREATE + "a_stream_socket_raises_value_error_and_stays_open[{}]"],
    "SpecFirstOnly": [CREATE + "the_next_address_is_tried_where_one_fails[{}]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = CREATE + "the_transport_is_an_asyncio_datagram_transport[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(udp_mutants, CAUGHT_BY, HARMLESS)
