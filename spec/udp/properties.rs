//! Properties of datagram transports: `core::datagram` between its user and a socket of datagrams.
//!
//! The simulation (`sim::datagram`) asserts its invariants after every operation: order, one fate per datagram, one
//! report per error, flow control, what close and abort owe. Transcripts show a few scenarios in full.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::datagram::{BATCH, Datagram, Policy, Read};
use tokioloop::core::fault::Fault;
use tokioloop::sim::Decode;
use tokioloop::sim::datagram::{ECONNREFUSED, EMSGSIZE, Event, Op, Reaction, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..200)
}

/// Operations of an endpoint that nobody breaks: sends, a slow kernel, refused datagrams, protocols that answer.
fn orderly() -> impl Strategy<Value = Vec<Op>> {
    let reaction = prop_oneof![
        Just(Reaction::Nothing),
        (0_u32..3000).prop_map(Reaction::Send),
        (0_u32..3000).prop_map(Reaction::SendTwice),
        Just(Reaction::PauseReading),
        Just(Reaction::ResumeReading),
        Just(Reaction::Interrupt),
    ];
    let op = prop_oneof![
        6 => (0_u32..5000).prop_map(Op::Send),
        1 => any::<u8>().prop_map(Op::Burst),
        3 => reaction.prop_map(Op::React),
        2 => any::<u8>().prop_map(Op::Arrive),
        3 => any::<u8>().prop_map(Op::Drain),
        2 => any::<u8>().prop_map(Op::Refuse),
        1 => any::<bool>().prop_map(Op::ErrorQueue),
        1 => Just(Op::Icmp),
        1 => any::<[u8; 2]>().prop_map(|[high, low]| Op::SetLimits { high, low }),
        1 => any::<u8>().prop_map(Op::Bound),
        1 => Just(Op::PauseReading),
        1 => Just(Op::ResumeReading),
        1 => Just(Op::Stop),
        1 => any::<bool>().prop_map(Op::Coalesce),
        6 => Just(Op::Turn),
    ];
    (any::<bool>(), vec(op, 0..150)).prop_map(|(connected, mut ops)| {
        if connected {
            ops.insert(0, Op::Connect { header: 8 });
        }
        ops
    })
}

/// Datagrams that the kernel took, and errors that the protocol was told.
fn outcomes(events: &[Event]) -> (usize, usize) {
    events.iter().fold((0, 0), |(sent, errors), event| match event {
        Event::Sent(took, _) => (sent + took, errors),
        Event::Error(_) => (sent, errors + 1),
        _ => (sent, errors),
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_endpoint_keeps_its_invariants_whatever_happens_to_it(ops in ops()) {
        let lost = run(&ops).iter().filter(|event| matches!(event, Event::Lost(_))).count();
        prop_assert_eq!(lost, 1);
    }

    #[test]
    fn close_sends_all_that_was_admitted_before_it(ops in orderly(), late in 0_u32..500) {
        let sends = |op: &Op| match op {
            Op::Send(_) => 1,
            Op::Burst(count) => usize::from(*count),
            _ => 0,
        };
        let asked: usize = ops.iter().map(sends).sum();
        let mut all = ops;
        all.extend([Op::Close, Op::Turn, Op::Send(late)]);
        let events = run(&all);
        let (sent, errors) = outcomes(&events);
        // More than that where callbacks sent, too.
        prop_assert!(sent + errors >= asked, "{} sent and {} errors of {}", sent, errors, asked);
        prop_assert!(events.contains(&Event::Lost(Fault::Closed)));
    }

    #[test]
    fn callbacks_come_in_the_order_of_the_grammar(ops in ops()) {
        let (mut paused, mut next, mut lost) = (false, 0, false);
        for event in run(&ops) {
            match event {
                Event::Datagram(number) => {
                    prop_assert!(!lost && number == next);
                    next += 1;
                }
                Event::Pause => prop_assert!(!std::mem::replace(&mut paused, true) && !lost),
                Event::Resume => prop_assert!(std::mem::replace(&mut paused, false) && !lost),
                Event::Lost(_) => prop_assert!(!std::mem::replace(&mut lost, true)),
                Event::Error(_) | Event::Sent(..) | Event::Queued(_) => prop_assert!(!lost),
                Event::Dropped(_) => {}
            }
        }
        prop_assert!(lost);
    }

    #[test]
    fn datagrams_are_sent_at_once_or_coalesced_into_full_batches(count in 1_u8..100) {
        let sends = |ops: &[Op]| {
            let sent = |event: &Event| if let Event::Sent(took, _) = event { Some(*took) } else { None };
            run(ops).iter().filter_map(sent).collect::<Vec<_>>()
        };
        let mut ops = vec![Op::Bound(255)];
        ops.extend((0..count).map(|_| Op::Send(9)));
        ops.push(Op::Turn);
        prop_assert_eq!(sends(&ops), vec![1; count.into()], "each at once");
        ops.insert(0, Op::Coalesce(true));
        let all = usize::from(count);
        let batches = (0..all).step_by(BATCH).map(|at| (all - at).min(BATCH));
        prop_assert_eq!(sends(&ops), batches.collect::<Vec<_>>());
        ops.insert(0, Op::Connect { header: 8 });
        prop_assert_eq!(sends(&ops), vec![1; count.into()], "a connected endpoint sends each at once");
    }

    #[test]
    fn the_child_of_a_fork_sends_only_what_it_sent_itself(before in 0_u8..15, after in 0_u8..15, close: bool) {
        let mut ops = vec![Op::Bound(255), Op::Coalesce(true)];
        ops.extend((0..before).map(|_| Op::Send(9)));
        ops.push(Op::Fork);
        ops.extend((0..after).map(|_| Op::Send(9)));
        ops.push(if close { Op::Close } else { Op::Turn });
        prop_assert_eq!(outcomes(&run(&ops)), (after.into(), 0));
    }

    #[test]
    fn a_refused_datagram_costs_only_itself(count in 2_u8..60, refused in 0_u8..60, connected: bool, coalesces: bool) {
        let refused = refused % count;
        let mut ops = vec![Op::Bound(255), Op::Coalesce(coalesces), Op::Refuse(refused)];
        if connected {
            ops.insert(0, Op::Connect { header: 0 });
        }
        ops.extend((0..count).map(|_| Op::Send(9)));
        let events = run(&ops);
        let mut before = 0;
        for event in &events {
            match event {
                Event::Sent(took, _) => before += took,
                Event::Error(errno) => {
                    prop_assert_eq!((*errno, before), (EMSGSIZE, usize::from(refused)), "told in its place");
                }
                _ => {}
            }
        }
        prop_assert_eq!(outcomes(&events), (usize::from(count) - 1, 1));
    }

    #[test]
    fn a_refused_datagram_does_not_end_the_flush(count in 2_u8..15, refused in 0_u8..14) {
        let mut ops = vec![Op::Bound(255), Op::Coalesce(true), Op::Refuse(refused % count)];
        ops.extend((0..count).map(|_| Op::Send(9)));
        // What the flush has left is discarded.
        ops.extend([Op::Size, Op::Abort]);
        prop_assert_eq!(outcomes(&run(&ops)), (usize::from(count) - 1, 1));
    }

    #[test]
    fn each_error_is_told_though_nothing_is_sent(errors in 1_usize..12) {
        let mut ops = vec![Op::Connect { header: 8 }];
        ops.extend((0..errors).flat_map(|_| [Op::Icmp, Op::Turn, Op::Turn]));
        prop_assert_eq!(outcomes(&run(&ops)), (0, errors));
    }

    #[test]
    fn the_word_for_an_error_that_nobody_takes_is_taken_no_more_until_there_is_one(turns in 10_usize..40) {
        let mut ops = vec![Op::Connect { header: 8 }, Op::ErrorQueue(true)];
        ops.extend(vec![Op::Turn; turns]);
        ops.extend([Op::ErrorQueue(false), Op::Icmp, Op::Turn, Op::Turn]);
        prop_assert_eq!(outcomes(&run(&ops)), (0, 0), "what says nothing of itself");
        // A send finds it, and the next one is told of again.
        ops.extend([Op::Send(1), Op::Icmp, Op::Turn, Op::Turn]);
        prop_assert_eq!(outcomes(&run(&ops)), (0, 2));
    }

    #[test]
    fn what_is_no_error_of_the_kernels_ends_the_endpoint(before in 0_u8..20, after in 0_u8..20, coalesces: bool) {
        let mut ops = vec![Op::Bound(255), Op::Coalesce(coalesces), Op::Misaddress(before)];
        ops.extend(vec![Op::Send(9); usize::from(before) + 1]);
        ops.extend([Op::Turn, Op::Turn]);
        ops.extend(vec![Op::Send(9); after.into()]);
        let events = run(&ops);
        prop_assert_eq!(outcomes(&events), (before.into(), 0));
        prop_assert!(events.contains(&Event::Lost(Fault::User)));
    }

    #[test]
    fn what_an_exit_cuts_off_is_delivered_in_the_next_turn(batch in 2_u8..15, at in 0_u8..14) {
        let at = usize::from(at % (batch - 1));
        let mut ops: Vec<_> = (0..at).map(|_| Op::React(Reaction::Nothing)).collect();
        ops.extend([Op::React(Reaction::Interrupt), Op::Arrive(batch), Op::Turn, Op::Turn, Op::Close]);
        let delivered = run(&ops).into_iter().filter(|event| matches!(event, Event::Datagram(_))).count();
        prop_assert_eq!(delivered, usize::from(batch));
    }

    #[test]
    fn an_endpoint_closes_though_an_exit_comes_of_what_leaves_before(count in 1_u8..15, refused in 0_u8..15, abort: bool) {
        let mut ops = vec![Op::Bound(255), Op::Coalesce(true), Op::Refuse(refused % count)];
        ops.extend((0..count).map(|_| Op::Send(9)));
        ops.extend([Op::React(Reaction::Interrupt), if abort { Op::Abort } else { Op::Close }, Op::Turn]);
        let events = run(&ops);
        prop_assert!(events.contains(&Event::Lost(Fault::Closed)));
        // `abort` waits for nothing that the exit has cut off.
        let sent = if abort { refused % count } else { count - 1 };
        prop_assert_eq!(outcomes(&events), (sent.into(), 1));
    }

    #[test]
    fn pausing_inside_a_batch_keeps_the_rest_for_later(batch in 1_u8..40, at in 0_u8..40) {
        let at = usize::from(at % batch);
        let mut ops: Vec<_> = (0..at).map(|_| Op::React(Reaction::Nothing)).collect();
        ops.extend([Op::React(Reaction::PauseReading), Op::Arrive(batch), Op::Turn, Op::Turn, Op::Turn]);
        let delivered = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Datagram(_))).count();
        // The run itself resumes in the end, and asserts that nothing is missing then.
        prop_assert_eq!(delivered(&run(&ops)), usize::from(batch));
        ops.push(Op::Close);
        prop_assert_eq!(delivered(&run(&ops)), at + 1);
    }
}

#[test]
fn what_is_coalesced_may_reach_the_high_mark_and_leaves_beyond_it() {
    let ops = [Op::Coalesce(true), Op::SetLimits { high: 4, low: 1 }, Op::Send(16), Op::Send(0), Op::Send(0), Op::Turn];
    let sends =
        |ops: &[Op]| run(ops).iter().filter(|event| matches!(event, Event::Sent(..))).copied().collect::<Vec<_>>();
    assert_eq!(sends(&ops), [Event::Sent(3, 3)]);
}

#[test]
fn the_kernel_is_asked_whatever_is_known_of_it_once_after_a_pause() {
    let mut endpoint = Datagram::<u64, Vec<u8>>::new(Policy { header: 8, batches: true, fixed: false });
    assert!(!endpoint.handle_open().is_none());
    assert!(!endpoint.forces_recv());
    assert_eq!(endpoint.begin_read(1), Read::Receive { force: false, errored: false });
    assert!(endpoint.pause_reading());
    assert!(!endpoint.resume_reading().is_none() && endpoint.forces_recv());
    assert_eq!(endpoint.begin_read(2), Read::Receive { force: true, errored: false });
    assert!(!endpoint.forces_recv());
}

#[test]
fn an_endpoint_is_read_once_a_turn_and_as_often_as_asked_where_a_program_has_turns_of_its_own() {
    let mut endpoint = Datagram::<u64, Vec<u8>>::new(Policy { header: 8, batches: true, fixed: false });
    assert!(!endpoint.handle_open().is_none());
    let read = Read::Receive { force: false, errored: false };
    assert_eq!((endpoint.begin_read(1), endpoint.begin_read(1)), (read, Read::Nothing));
    endpoint.forget_turn();
    assert_eq!((endpoint.begin_read(1), endpoint.begin_read(1)), (read, Read::Nothing));
    assert_eq!((endpoint.begin_read(0), endpoint.begin_read(0)), (read, read));
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops))
}

#[test]
fn transcript_of_small_datagrams_in_one_turn() {
    insta::assert_snapshot!(transcript(&[Op::Send(10), Op::Send(0), Op::Send(30), Op::Turn, Op::Send(40), Op::Turn]));
}

#[test]
fn transcript_of_a_full_socket_and_a_protocol_that_sends_when_resumed() {
    let ops = [
        Op::Bound(2),
        Op::SetLimits { high: 4, low: 1 },
        Op::React(Reaction::Nothing),
        Op::React(Reaction::Send(60)),
        Op::Send(20),
        Op::Send(21),
        Op::Send(22),
        Op::Send(23),
        Op::Turn,
        Op::Drain(1),
        Op::Turn,
        Op::Drain(2),
        Op::Turn,
        Op::Drain(2),
        Op::Turn,
        Op::Close,
    ];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_connected_endpoint_whose_peer_is_gone() {
    let ops =
        [Op::Connect { header: 8 }, Op::Send(5), Op::Icmp, Op::Send(6), Op::Icmp, Op::Turn, Op::Send(7), Op::Turn];
    let text = transcript(&ops);
    assert_eq!(text.matches(&format!("Error({ECONNREFUSED})")).count(), 2);
    insta::assert_snapshot!(text);
}

#[test]
fn transcript_of_a_close_from_within_datagram_received_with_datagrams_queued() {
    let ops = [
        Op::Bound(1),
        Op::Send(5),
        Op::Send(6),
        Op::React(Reaction::Close),
        Op::Arrive(3),
        Op::Turn,
        Op::Drain(1),
        Op::Turn,
        Op::Turn,
        Op::Send(7),
    ];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_an_abort_while_datagrams_are_queued() {
    let ops = [Op::Bound(1), Op::Send(5), Op::Send(6), Op::Send(7), Op::Abort, Op::Send(8), Op::Turn, Op::Send(9)];
    insta::assert_snapshot!(transcript(&ops));
}
