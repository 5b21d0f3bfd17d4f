"""The tests of servers and of connecting can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import server_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

CONNECT = "tcp/test_connect.py::test_"
CREATE = "tcp/test_create_server.py::test_"
SERVER = "tcp/test_server.py::test_"
UNIX_CONNECT = "unix/test_connect.py::test_"
UNIX_SERVER = "unix/test_server.py::test_"
CAUGHT_BY = {
    "SpecFirstOnly": [CONNECT + "addresses_are_tried_in_order_until_one_connects[{}]"],
    "SpecOneError": [CONNECT + "all_errors_raises_an_exception_group_of_every_failure[{}]"],
    "SpecKeepsRefused": [CONNECT + "a_refused_connection_raises_connection_refused_error[{}]"],
    "SpecCycles": [CONNECT + "a_refused_connection_leaves_no_reference_cycle[{}-False-127.0.0.1]"],
    "SpecOrdered": [CONNECT + "interleave_alternates_the_families[{}]"],
    "SpecOneAtATime": [Hang(CONNECT + "happy_eyeballs_starts_the_next_attempt_after_the_delay[{}]")],
    "SpecAnyPort": [CONNECT + "local_addr_binds_the_socket_before_it_connects[{}]"],
    "SpecEagerFactory": [CONNECT + "the_factory_is_called_for_a_connection_that_exists_only[{}]"],
    "SpecStillBlocking": [CONNECT + "a_connected_socket_is_used_as_it_is_and_made_non_blocking[{}-True]"],
    "SpecTwoOwners": [CONNECT + "the_descriptor_of_an_open_transport_cannot_be_watched[{}-add_reader]"],
    "SpecBindsLate": [
        CREATE + "a_port_is_served_again_right_after_its_connections_ended[{}]",
    ],
    "SpecNoKeepAlive": [CREATE + "keep_alive_sets_the_option[{}]"],
    "SpecDeepBacklog": [CREATE + "the_backlog_bounds_the_connections_that_wait[{}]"],
    "SpecServesAtOnce": [SERVER + "a_server_made_idle_serves_once_it_is_started[{}]"],
    "SpecGivesUp": [Hang(SERVER + "running_out_of_descriptors_is_reported_and_the_server_goes_on_later[{}]")],
    "SpecHangsUp": [SERVER + "clients_live_on_when_their_server_is_closed[{}]"],
    "SpecListensOn": [SERVER + "close_closes_the_listeners_and_may_be_called_again[{}]"],
    "SpecOneForAll": [SERVER + "the_factory_is_called_once_for_each_connection[{}]"],
    "SpecFactoryEnds": [Hang(SERVER + "a_server_lives_on_when_its_protocol_factory_raises[{}]")],
    "SpecLeavesUnmade": [Hang(SERVER + "a_server_lives_on_when_its_protocol_factory_raises[{}]")],
    "SpecWaitsForNone": [SERVER + "wait_closed_waits_for_close_and_for_every_client[{}]"],
    "SpecAbortsClients": [SERVER + "close_clients_closes_every_connection_after_its_flush[{}]"],
    "SpecClosesClients": [Hang(SERVER + "abort_clients_ends_every_connection_at_once[{}]")],
    "SpecServesAgain": [Hang(SERVER + "serve_forever_twice_or_on_a_closed_server_raises_runtime_error[{}]")],
    "SpecSocketStays": [UNIX_SERVER + "the_socket_file_goes_when_the_server_closes[{}]"],
    "SpecUnlinksAll": [UNIX_SERVER + "a_file_that_is_not_the_servers_own_any_more_is_left_alone[{}-replaced]"],
    "SpecPathsAreText": [
        UNIX_SERVER + "a_server_listens_on_a_path_given_as_str_bytes_or_path_like[{}-bytes]",
        Hang(UNIX_CONNECT + "a_path_may_be_str_bytes_or_path_like[{}-PathLike]"),
    ],
    "SpecNothingAbstract": [UNIX_SERVER + "a_server_listens_on_an_abstract_address[{}-str]"],
    "SpecKeepsUnixRefused": [UNIX_CONNECT + "a_connection_that_fails_leaves_no_descriptor_open[{}]"],
    "SpecAnySocket": [UNIX_CONNECT + "a_path_or_a_unix_stream_socket_is_needed_and_not_both[{}-a TCP socket]"],
    "SpecTakesStale": [UNIX_SERVER + "a_socket_file_that_nobody_listens_on_is_replaced[{}]"],
    "SpecNoRemotePath": ["unix/test_datagrams.py::test_an_endpoint_with_a_remote_path_sends_there[{}]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = CONNECT + "the_transport_is_an_asyncio_transport[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(server_mutants, CAUGHT_BY, HARMLESS)
