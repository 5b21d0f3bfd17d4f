"""The tests of signals and subprocesses can fail: every mutant fails the tests that forbid what it does."""

from __future__ import annotations

from spec._meta import process_mutants
from spec._meta.mutation import Hang, Mutation, MutationTests

HANDLERS = "signals/test_handlers.py::"
DELIVERY = "signals/test_delivery.py::"
REMOVING = "signals/test_removing.py::"
STARTING = "subprocess/test_starting.py::"
ARGUMENTS = "subprocess/test_arguments.py::"
STREAMS = "subprocess/test_streams.py::"
PROTOCOLS = "subprocess/test_protocols.py::"
EXIT = "subprocess/test_exit.py::"
KILLING = "subprocess/test_signals.py::"
TALKING = "subprocess/test_communicate.py::"
CLOSING = "subprocess/test_closing.py::"
CAUGHT_BY = {
    "SpecForgetful": [REMOVING + "test_closing_the_loop_gives_the_signals_back[{}]"],
    "SpecRepeats": [
        HANDLERS + "test_the_callback_gets_its_arguments_once_in_the_thread_of_the_loop[{}]",
        "signals/test_model.py::test_handlers_behave_like_the_model[{}]",
    ],
    "SpecCoalesces": [
        DELIVERY + "test_each_signal_received_is_a_call[{}]",
        DELIVERY + "test_callbacks_are_called_in_the_order_of_the_signals[{}]",
    ],
    "SpecInterrupts": [HANDLERS + "test_the_callback_waits_for_the_callback_that_runs[{}]"],
    "SpecDeaf": [
        Hang(DELIVERY + "test_a_signal_that_another_thread_gets_wakes_the_loop[{}]"),
        Hang(DELIVERY + "test_a_signal_that_the_main_thread_blocks_is_delivered[{}]"),
    ],
    "SpecGrabs": [REMOVING + "test_a_loop_without_handlers_leaves_the_programs_wakeup_fd[{}]"],
    "SpecUnmindful": [REMOVING + "test_removing_one_handler_leaves_the_other[{}]"],
    "SpecBreaksCalls": [DELIVERY + "test_a_read_that_a_signal_interrupts_goes_on[{}]"],
    "SpecAbandons": [STARTING + "test_cancelling_the_start_leaves_no_process[{}-2]"],
    "SpecReapsAll": [EXIT + "test_children_of_the_program_are_left_to_it[{}]"],
    "SpecMistakes": [
        EXIT + "test_the_code_of_a_signal_is_negative[{}-15]",
        KILLING + "test_a_signal_reaches_the_child[{}-kill-9]",
    ],
    "SpecStopped": [Hang(EXIT + "test_a_stopped_child_has_not_exited[{}]")],
    "SpecPatient": [Hang(EXIT + "test_wait_returns_while_another_process_has_the_pipe[{}-exits-after]")],
    "SpecHastyEnd": [PROTOCOLS + "test_an_exit_is_told_while_another_process_has_the_pipe[{}]"],
    "SpecOneWaiter": [
        Hang(EXIT + "test_every_waiter_and_every_later_one_gets_the_code[{}]"),
        Hang(EXIT + "test_a_cancelled_wait_disturbs_nobody[{}]"),
    ],
    "SpecSpares": [Hang(CLOSING + "test_closing_kills_the_child_and_closes_the_pipes[{}]")],
    "SpecStaysOpen": [
        ARGUMENTS + "test_the_child_has_the_descriptors_of_pass_fds_only[{}]",
        Hang(ARGUMENTS + "test_no_child_has_the_pipes_of_another[{}-True]"),
    ],
    "SpecLenient": [STARTING + "test_text_and_buffers_are_refused[{}-text]"],
    "SpecLeaky": [EXIT + "test_no_descriptor_and_no_thread_is_left[{}]"],
    "SpecBlindShot": [KILLING + "test_a_signal_while_another_process_has_the_pipes_is_no_error[{}-kill]"],
    "SpecMerges": [
        TALKING + "test_input_goes_in_and_both_outputs_come_out[{}]",
        STREAMS + "test_the_streams_are_pipes_by_default[{}-exec]",
    ],
    "SpecBreaksOnPipe": [TALKING + "test_a_child_that_does_not_want_its_input_is_no_error[{}-reads a bit]"],
}
# What none of them breaks: a mutant that fails everything shows nothing.
HARMLESS = "signals/test_refusals.py::test_a_closed_loop_takes_no_handler[{}]"


class TestMutants(MutationTests):
    mutation = Mutation(process_mutants, CAUGHT_BY, HARMLESS)
