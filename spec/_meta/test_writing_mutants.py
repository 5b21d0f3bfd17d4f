"""The tests of when what is written is sent can fail: every mutant fails the clauses that forbid what it does."""

from __future__ import annotations

from spec._meta import writing_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

_TCP = "tcp/test_contract.py::TestConnected::test_"
_UDP = "udp/test_at_once.py::test_"

CAUGHT_BY = {
    "SpecHolds": [
        Hang(f"{_TCP}each_write_of_a_step_is_with_the_peer_before_the_step_ends[{{}}]"),
        Hang(f"{_TCP}what_another_thread_writes_does_not_wait_for_an_idle_loop[{{}}]"),
        f"{_TCP}the_sockets_own_shutdown_comes_behind_what_was_written[{{}}]",
        Hang(f"{_TCP}what_others_write_by_the_descriptor_keeps_its_place[{{}}]"),
        f"{_TCP}what_was_written_before_a_fork_is_sent_once[{{}}-closes]",
        Hang(f"{_TCP}a_process_that_ends_at_once_has_sent_what_it_wrote[{{}}-os._exit]"),
        Hang(f"{_TCP}what_a_signal_handler_wrote_before_it_raised_is_sent[{{}}]"),
    ],
    "SpecHoldsDatagrams": [
        Hang(f"{_UDP}each_datagram_of_a_step_is_with_the_receiver_before_the_step_ends[{{}}-unconnected]"),
        Hang(f"{_UDP}what_another_thread_sends_does_not_wait_for_an_idle_loop[{{}}-connected]"),
        f"{_UDP}what_was_sent_before_a_fork_is_sent_once[{{}}-closes-unix]",
        Hang(f"{_UDP}a_process_that_ends_at_once_has_sent_what_it_sent[{{}}-os.execv-unconnected]"),
        Hang(f"{_UDP}error_received_is_called_before_sendto_returns[{{}}-unconnected]"),
    ],
    "SpecRepeats": [f"{_TCP}what_was_written_before_a_fork_is_sent_once[{{}}-aborts]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = f"{_TCP}one_write_reaches_the_peer_whole[{{}}-100]"


class TestWritingMutants(MutationTests):
    mutation = Mutation(writing_mutants, CAUGHT_BY, HARMLESS)
