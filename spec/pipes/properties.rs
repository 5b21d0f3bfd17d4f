//! Properties of pipe transports: the rows of `core::stream`'s table for a reading and a writing end.
//!
//! The simulation (`sim::stream`) asserts its invariants after every operation, as for TCP. What differs is that an
//! end has one direction: the end of its input, or the loss of its reader, is the end of it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::fault::Fault;
use tokioloop::core::stream::{Policy, Stream};
use tokioloop::sim::Decode;
use tokioloop::sim::stream::{Event, Op, Reaction, run_as};

const EPIPE: i32 = 32;

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..200)
}

fn kinds() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::READ_PIPE), Just(Policy::WRITE_PIPE), Just(Policy::WRITE_DEVICE)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_pipe_keeps_its_invariants_whatever_happens_to_it(kind in kinds(), ops in ops()) {
        let events = run_as(kind, &ops);
        prop_assert_eq!(events.iter().filter(|event| matches!(event, Event::Lost(_))).count(), 1);
        for event in events {
            match event {
                Event::Buffer | Event::Data(_) | Event::Eof | Event::EofUntold => prop_assert!(kind.readable),
                Event::Sent(..) | Event::Queued(_) | Event::Pause | Event::Resume => prop_assert!(kind.writable),
                Event::Shutdown => prop_assert!(false, "a pipe has no half to shut down"),
                Event::Dropped(_) | Event::Refused(_) | Event::Drained | Event::Lost(_) => {}
            }
        }
    }

    #[test]
    fn an_end_of_input_is_the_end_of_the_transport_whatever_is_answered(
        keep_open: bool, sizes in vec(1_u32..9000, 0..10), raises: bool,
    ) {
        let mut ops: Vec<_> = sizes.iter().copied().map(Op::PeerSend).collect();
        ops.extend([Op::PeerEnd, Op::KeepOpen(keep_open)]);
        // What `data_received` raises ends nothing, nor does what `eof_received` raises change how it ends.
        ops.extend(sizes.iter().map(|_| Op::React(if raises { Reaction::Raise } else { Reaction::Nothing })));
        ops.extend(sizes.iter().flat_map(|_| [Op::Turn, Op::Turn]));
        ops.extend([Op::Turn, Op::Turn]);
        let events = run_as(Policy::READ_PIPE, &ops);
        let got: usize = events.iter().map(|event| if let Event::Data(n) = event { *n } else { 0 }).sum();
        prop_assert_eq!(got as u64, sizes.iter().copied().map(u64::from).sum::<u64>());
        let end: Vec<_> = events.into_iter().filter(|event| matches!(event, Event::Eof | Event::Lost(_))).collect();
        prop_assert_eq!(end, [Event::Eof, Event::Lost(Fault::Closed)]);
    }

    #[test]
    fn a_reader_that_goes_breaks_the_pipe_only_if_something_is_queued(
        capacity in 1_u16..4000, written in 0_u32..8000, closed: bool,
    ) {
        let mut ops = vec![Op::Bound { capacity, per_call: u8::MAX }, Op::Write(written), Op::Turn];
        if closed {
            ops.push(Op::WriteEof);
        }
        ops.extend([Op::PeerReset, Op::Turn, Op::Turn]);
        let lost = run_as(Policy::WRITE_PIPE, &ops).into_iter().find(|event| matches!(event, Event::Lost(_)));
        let fault = if written > u32::from(capacity) { Fault::Os(EPIPE) } else { Fault::Closed };
        prop_assert_eq!(lost, Some(Event::Lost(fault)));
    }

    #[test]
    fn write_eof_delivers_what_was_written_before_it_and_nothing_after(
        capacity in 1_u16..4000, before in vec(1_u32..5000, 0..8), after in vec(1_u32..500, 0..8),
    ) {
        let mut ops = vec![Op::Bound { capacity, per_call: u8::MAX }];
        ops.extend(before.iter().copied().map(Op::Write));
        ops.push(Op::WriteEof);
        ops.extend(after.iter().copied().map(Op::Write));
        let events = run_as(Policy::WRITE_PIPE, &ops);
        let sent: usize = events.iter().map(|event| if let Event::Sent(sent, _) = event { *sent } else { 0 }).sum();
        prop_assert_eq!(sent as u64, before.iter().copied().map(u64::from).sum::<u64>());
        prop_assert_eq!(events.iter().filter(|event| matches!(event, Event::Dropped(_))).count(), after.len() + 1);
        prop_assert!(events.contains(&Event::Lost(Fault::Closed)));
    }
}

#[test]
fn only_a_reading_end_reports_errors_of_the_kernel_but_for_eio() {
    const EIO: i32 = 5;
    for kind in [Policy::TCP, Policy::SOCKET, Policy::WRITE_PIPE, Policy::WRITE_DEVICE] {
        assert!(kind.is_quiet(None) && kind.is_quiet(Some(EPIPE)));
    }
    assert!(Policy::READ_PIPE.is_quiet(Some(EIO)));
    assert!(!Policy::READ_PIPE.is_quiet(Some(EPIPE)) && !Policy::READ_PIPE.is_quiet(None));
}

#[test]
fn every_end_that_is_written_can_write_its_end() {
    let can = |policy| Stream::<Vec<u8>>::new(policy).can_write_eof();
    assert!(can(Policy::TCP) && can(Policy::WRITE_PIPE) && can(Policy::WRITE_DEVICE) && !can(Policy::READ_PIPE));
}

fn transcript(kind: Policy, ops: &[Op]) -> String {
    tokioloop::sim::transcript(run_as(kind, ops))
}

#[test]
fn transcript_of_a_reading_end_whose_callbacks_raise() {
    insta::assert_snapshot!(transcript(
        Policy::READ_PIPE,
        &[
            Op::React(Reaction::Raise),
            Op::PeerSend(5),
            Op::Turn,
            Op::PeerSend(3),
            Op::Turn,
            Op::React(Reaction::Raise),
            Op::PeerEnd,
            Op::Turn,
            Op::Turn,
        ]
    ));
}

#[test]
fn transcript_of_a_writing_end_whose_reader_goes_while_it_flushes() {
    insta::assert_snapshot!(transcript(
        Policy::WRITE_PIPE,
        &[
            Op::Bound { capacity: 100, per_call: u8::MAX },
            Op::Write(150),
            Op::WriteEof,
            Op::Write(10),
            Op::Turn,
            Op::PeerReset,
            Op::Turn,
            Op::Turn,
        ]
    ));
}
