//! Properties of stream transports: `core::stream` with its outbox and flow control, `core::coalesce`; and of
//! listeners: `core::accept`.
//!
//! The simulation (`sim::stream`) asserts its invariants after every operation: bytes in order, the order of the
//! protocol's callbacks, flow control, what close and abort owe. Transcripts show a few scenarios in full.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::accept::AcceptError;
use tokioloop::core::fault::Fault;
use tokioloop::core::flow::Flow;
use tokioloop::core::outbox::Outbox;
use tokioloop::core::stream::{Policy, Step, Stream};
use tokioloop::sim::stream::{Event, Op, Reaction, SLICES_MAX, run};
use tokioloop::sim::{Decode, accept, coalesce};
use tokioloop::sim::{pattern, patterned};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..200)
}

/// Operations of a connection that nobody breaks: writes, a slow peer, small buffers, protocols that write back.
fn orderly() -> impl Strategy<Value = Vec<Op>> {
    let reaction = prop_oneof![
        Just(Reaction::Nothing),
        (0_u32..3000).prop_map(Reaction::Write),
        (0_u32..3000).prop_map(Reaction::WriteTwice),
        Just(Reaction::PauseReading),
        Just(Reaction::ResumeReading),
    ];
    let op = prop_oneof![
        6 => (0_u32..5000).prop_map(Op::Write),
        3 => reaction.prop_map(Op::React),
        2 => (0_u32..9000).prop_map(Op::PeerSend),
        3 => (0_u32..9000).prop_map(Op::PeerRead),
        1 => any::<[u8; 2]>().prop_map(|[high, low]| Op::SetLimits { high, low }),
        1 => (0_u16..5000, any::<u8>()).prop_map(|(capacity, per_call)| Op::Bound { capacity, per_call }),
        1 => Just(Op::PauseReading),
        1 => Just(Op::ResumeReading),
        1 => Just(Op::Stop),
        1 => any::<bool>().prop_map(Op::Coalesce),
        6 => Just(Op::Turn),
    ];
    vec(op, 0..150)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_stream_keeps_its_invariants_whatever_happens_to_it(ops in ops()) {
        let lost = run(&ops).iter().filter(|event| matches!(event, Event::Lost(_))).count();
        prop_assert_eq!(lost, 1);
    }

    #[test]
    fn close_delivers_all_that_was_written_before_it(mut ops in orderly(), late in 1_u32..500) {
        let written: u64 = ops.iter().map(|op| if let Op::Write(len) = op { u64::from(*len) } else { 0 }).sum();
        ops.extend([Op::Close, Op::Turn, Op::Write(late)]);
        let events = run(&ops);
        let sent: usize = events.iter().map(|event| if let Event::Sent(sent, _) = event { *sent } else { 0 }).sum();
        // More than that where callbacks wrote, too.
        prop_assert!(sent as u64 >= written, "{} of {} bytes", sent, written);
        prop_assert!(events.contains(&Event::Lost(Fault::Closed)));
    }

    #[test]
    fn callbacks_come_in_the_order_of_the_grammar(ops in ops()) {
        let (mut paused, mut ended, mut lost) = (false, false, false);
        for event in run(&ops) {
            match event {
                Event::Data(n) => prop_assert!(n > 0 && !ended && !lost),
                Event::Buffer => prop_assert!(!ended && !lost),
                Event::Pause => prop_assert!(!std::mem::replace(&mut paused, true) && !lost),
                Event::Resume => prop_assert!(std::mem::replace(&mut paused, false) && !lost),
                Event::Eof => prop_assert!(!std::mem::replace(&mut ended, true) && !lost),
                Event::Lost(_) => prop_assert!(!std::mem::replace(&mut lost, true)),
                Event::EofUntold => prop_assert!(!ended && !lost),
                Event::Sent(..) | Event::Queued(_) | Event::Shutdown | Event::Drained => prop_assert!(!lost),
                Event::Dropped(_) | Event::Refused(_) => {}
            }
        }
        prop_assert!(lost);
    }

    #[test]
    fn an_end_that_was_not_told_is_told_until_it_is_answered(exits in 1_usize..4, keep_open: bool, paused: bool) {
        let mut ops = vec![Op::KeepOpen(keep_open), Op::PeerEnd];
        ops.extend(std::iter::repeat_n(Op::React(Reaction::Exit), exits));
        ops.extend(if paused { vec![Op::PauseReading, Op::Turn, Op::ResumeReading] } else { Vec::new() });
        ops.extend(std::iter::repeat_n(Op::Turn, exits + 1));
        ops.push(Op::Close);
        let events = run(&ops);
        let told = events.iter().filter(|event| matches!(event, Event::EofUntold)).count();
        prop_assert_eq!(told, exits);
        prop_assert_eq!(&events[exits..exits + 2], [Event::Eof, Event::Lost(Fault::Closed)]);
    }

    #[test]
    fn of_a_shutdown_that_fails_only_who_asked_for_it_is_told(written in 1_u32..500, capacity in 1_u16..500) {
        let ops = [
            Op::Bound { capacity, per_call: 9 },
            Op::FailShutdown,
            Op::Write(written),
            Op::WriteEof,
            Op::PeerRead(500),
            Op::Turn,
            Op::Turn,
        ];
        // What is handed up is the error of the call, and never the loop's.
        prop_assert!(run(&ops).contains(&Event::Shutdown));
    }

    #[test]
    fn a_write_is_sent_before_it_returns_whatever_was_written_before(lens in vec(1_u32..500, 1..40), running: bool) {
        let mut ops = if running { Vec::new() } else { vec![Op::Stop] };
        ops.extend(lens.iter().copied().map(Op::Write));
        let sent: Vec<_> = run(&ops).into_iter().take(lens.len()).collect();
        let each = lens.into_iter().map(|len| Event::Sent(len as usize, len as usize));
        prop_assert_eq!(sent, each.collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_of_coalesced_writes_costs_one_vectored_send(
        lens in vec(1_u32..500, 1..40), early in prop_oneof![Just(Op::Turn), Just(Op::Size), Just(Op::Coalesce(false))],
    ) {
        let mut ops = vec![Op::Coalesce(true)];
        ops.extend(lens.iter().copied().map(Op::Write));
        ops.push(early);
        let events = run(&ops);
        prop_assert!(events.iter().take(lens.len()).all(|event| matches!(event, Event::Queued(_))));
        let sends = events.iter().filter(|event| matches!(event, Event::Sent(..))).count();
        prop_assert_eq!(sends, lens.len().div_ceil(SLICES_MAX));
    }

    #[test]
    fn the_child_of_a_fork_sends_only_what_it_wrote_itself(
        before in vec(1_u32..500, 0..9), after in vec(1_u32..500, 0..9), end in prop_oneof![Just(Op::Close), Just(Op::Turn)],
    ) {
        let mut ops = vec![Op::Coalesce(true)];
        ops.extend(before.iter().copied().map(Op::Write));
        ops.push(Op::Fork);
        ops.extend(after.iter().copied().map(Op::Write));
        ops.push(end);
        let sent = run(&ops).into_iter().map(|event| if let Event::Sent(sent, _) = event { sent as u64 } else { 0 });
        prop_assert_eq!(sent.sum::<u64>(), after.into_iter().map(u64::from).sum::<u64>());
    }

    #[test]
    fn an_outbox_gives_out_what_came_in(
        chunks in vec((1_usize..300, 0_usize..4), 1..40), steps in vec(0_usize..400, 0..80), first in 0_usize..300,
    ) {
        let mut outbox = Outbox::default();
        let (mut pushed, mut sent) = (0_u64, 0_u64);
        let mut steps = steps.into_iter();
        for (at, (len, advances)) in chunks.into_iter().enumerate() {
            let skipped = if at == 0 { first.min(len) } else { 0 };
            outbox.push(patterned(pushed, len), skipped);
            pushed += len as u64;
            sent += skipped as u64;
            for n in steps.by_ref().take(advances) {
                let bytes: Vec<u8> = outbox.slices().flatten().copied().collect();
                prop_assert_eq!(bytes.len(), outbox.size());
                prop_assert_eq!(bytes.len() as u64, pushed - sent);
                prop_assert!(bytes.iter().zip(sent..).all(|(&byte, index)| byte == pattern(index)));
                prop_assert!(outbox.slices().all(|slice| !slice.is_empty()));
                sent = pushed.min(sent + n as u64);
                outbox.advance(n);
                prop_assert_eq!(outbox.is_empty(), sent == pushed);
            }
        }
    }

    #[test]
    fn pause_and_resume_alternate_by_the_marks(
        high in 0_usize..1000, low in 0_usize..1000, sizes in vec(0_usize..1500, 0..60),
    ) {
        let mut flow = Flow::default();
        let before = flow.limits();
        if flow.set_limits(Some(high), Some(low)).is_err() {
            prop_assert!(low > high && flow.limits() == before);
            return Ok(());
        }
        let (mut paused, mut size) = (false, 0);
        for next in sizes {
            if next > size {
                prop_assert_eq!(flow.handle_grown(next), !paused && next > high);
                paused |= next > high;
            } else {
                prop_assert_eq!(flow.handle_shrunk(next), paused && next <= low);
                paused &= next > low;
            }
            size = next;
            prop_assert_eq!(flow.is_paused(), paused);
        }
    }

    #[test]
    fn a_fatal_error_ends_a_stream_though_an_exit_comes_of_its_report(len in 1_u32..5000, queued in 0_u32..5000) {
        let reactions = [Op::React(Reaction::Raise), Op::React(Reaction::Exit)];
        let ops = [&[Op::Bound { capacity: 100, per_call: 9 }, Op::Write(queued)], &reactions[..], &[Op::PeerSend(len)]];
        let events = run(&[&ops.concat()[..], &[Op::Turn, Op::Turn]].concat());
        prop_assert!(events.contains(&Event::Lost(Fault::User)));
    }

    #[test]
    fn a_turn_reads_once_though_an_event_comes_beside_a_queued_read(lens in vec(1_u32..30_000, 1..5)) {
        let go_on = [Op::CallSoon(Reaction::PauseReading), Op::CallSoon(Reaction::ResumeReading)];
        let ops: Vec<_> = lens.iter().flat_map(|&len| [go_on[0], go_on[1], Op::PeerSend(len), Op::Turn, Op::Turn]).collect();
        let received = run(&ops).into_iter().map(|event| if let Event::Data(n) = event { n } else { 0 });
        prop_assert_eq!(received.sum::<usize>(), lens.iter().map(|&len| len as usize).sum::<usize>());
    }

    #[test]
    fn what_is_coalesced_keeps_its_invariants_whatever_threads_turns_and_forks_there_are(
        ops in vec(any::<[u8; 4]>().prop_map(coalesce::Op::from_bytes), 0..200),
    ) {
        let events = coalesce::run(&ops);
        // What no turn ends early leaves by one call.
        let corked = events.iter().filter(|event| matches!(event, coalesce::Event::Corked(_))).count();
        let away: usize = events.iter().map(|event| match event {
            coalesce::Event::Left(_, n) | coalesce::Event::Forgotten(_, n) => *n,
            coalesce::Event::Sent(_) | coalesce::Event::Corked(_) => 0,
        }).sum();
        prop_assert!(away >= corked);
    }

    #[test]
    fn the_writes_of_a_turn_leave_when_it_ends_by_one_call_for_each_endpoint(
        writes in vec(0..coalesce::ENDPOINTS, 0..40), exit in any::<bool>(),
    ) {
        let act = |act| coalesce::Op::Act { thread: 0, act };
        let mut ops = vec![act(coalesce::Act::Begin)];
        ops.extend(writes.iter().map(|&endpoint| act(coalesce::Act::Write(endpoint))));
        ops.push(act(coalesce::Act::End(exit)));
        let events = coalesce::run(&ops);
        prop_assert!(events[..writes.len()].iter().all(|event| matches!(event, coalesce::Event::Corked(_))));
        let mut left: Vec<(u8, usize)> = Vec::new();
        for &endpoint in &writes {
            match left.iter_mut().find(|(of, _)| *of == endpoint) {
                Some((_, count)) => *count += 1,
                None => left.push((endpoint, 1)),
            }
        }
        let left: Vec<_> = left.into_iter().map(|(endpoint, count)| coalesce::Event::Left(endpoint, count)).collect();
        prop_assert_eq!(&events[writes.len()..], &left[..]);
    }

    #[test]
    fn a_listener_keeps_its_invariants_whatever_its_peers_the_system_and_its_factory_do(
        ops in vec(any::<[u8; 4]>().prop_map(accept::Op::from_bytes), 0..200),
    ) {
        let events = accept::run(&ops);
        let released = events.iter().filter(|event| **event == accept::Event::Released).count();
        prop_assert!(released <= 1);
    }

    #[test]
    fn a_listener_accepts_its_backlog_in_bursts_one_a_turn(arrived in 1_u8..40, turns in 1_u8..20) {
        let turns = std::iter::repeat_n(accept::Op::Turn, turns.into());
        let ops: Vec<_> = std::iter::once(accept::Op::Arrive(arrived)).chain(turns.clone()).collect();
        let told = |ops: &[accept::Op]| {
            let accepted = |event: &accept::Event| matches!(event, accept::Event::Accepted(_));
            accept::run(ops).into_iter().filter(accepted).count()
        };
        // The last one of the run would accept what is left: stopped before, it does not.
        let stopped = [&ops[..], &[accept::Op::Stop]].concat();
        prop_assert_eq!(told(&stopped), usize::from(arrived).min(turns.count() * accept::BURST as usize));
        prop_assert_eq!(told(&ops), usize::from(arrived));
    }

    #[test]
    fn a_listener_without_resources_tells_once_a_second_and_loses_nobody(
        lacks in 1_u8..5, millis in vec(1_u16..1500, 0..40), arrived in 1_u8..9,
    ) {
        let lack = accept::Op::Refuse(AcceptError::OutOfResources);
        let mut ops = vec![lack; lacks.into()];
        ops.push(accept::Op::Arrive(arrived));
        for &millis in &millis {
            ops.extend([accept::Op::Turn, accept::Op::Arrive(1), accept::Op::Advance(millis)]);
        }
        ops.push(accept::Op::Turn);
        let events = accept::run(&ops);
        let reported = events.iter().filter(|event| matches!(event, accept::Event::Reported(_))).count();
        let mut due = (0, 1);
        for millis in millis.into_iter().map(u32::from) {
            due = if due.0 + millis >= 1000 { (0, due.1 + 1) } else { (due.0 + millis, due.1) };
        }
        prop_assert_eq!(reported, due.1.min(lacks.into()));
        let accepted = events.iter().filter(|event| matches!(event, accept::Event::Accepted(_))).count();
        prop_assert_eq!(accepted, usize::from(arrived) + (ops.len() - 2 - usize::from(lacks)) / 3);
    }
}

#[test]
fn a_short_read_drains_a_tcp_socket_that_has_neither_an_end_nor_urgent_data() {
    let drained = |n, closed, urgent| Policy::TCP.is_drained(n, 10, closed, || urgent);
    assert!(drained(9, false, false) && !drained(10, false, false));
    assert!(!drained(9, true, false) && !drained(9, false, true));
    for other in [Policy::SOCKET, Policy::READ_PIPE] {
        assert!(!other.is_drained(9, 10, false, || false));
    }
}

#[test]
fn a_stream_is_read_once_in_a_turn_and_whenever_there_is_none() {
    let mut stream = Stream::<Vec<u8>>::new(Policy::TCP);
    assert!(stream.handle_open().has(Step::WATCH_READ));
    assert!(stream.begin_read(1) && !stream.begin_read(1) && stream.begin_read(2) && !stream.begin_read(2));
    stream.forget_turn();
    assert!(stream.begin_read(2) && !stream.begin_read(2), "a program has turns of its own");
    assert!(stream.begin_read(0) && stream.begin_read(0));
}

#[test]
fn what_nobody_sends_is_handed_out_when_the_stream_fails() {
    let mut stream = Stream::new(Policy::TCP);
    assert!(stream.enqueue_rest(vec![1, 2], 1).has(Step::WATCH_WRITE) && stream.fail(Fault::Closed).has(Step::DISCARD));
    assert!(stream.enqueue([vec![3]], false).has(Step::DISCARD) && stream.enqueue_rest(vec![4], 0).has(Step::DISCARD));
    assert_eq!(stream.take_discarded(), [vec![1, 2], vec![3], vec![4]]);
    assert!(stream.take_discarded().is_empty());
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops))
}

#[test]
fn transcript_of_small_writes_in_one_turn() {
    insta::assert_snapshot!(transcript(&[
        Op::Write(10),
        Op::Write(20),
        Op::Write(30),
        Op::Turn,
        Op::Write(40),
        Op::Turn
    ]));
}

#[test]
fn transcript_of_coalesced_writes() {
    insta::assert_snapshot!(transcript(&[
        Op::Coalesce(true),
        Op::Write(10),
        Op::Write(20),
        Op::Turn,
        Op::Write(40),
        Op::WriteEof,
        Op::Turn,
    ]));
}

#[test]
fn transcript_of_a_slow_peer_and_a_protocol_that_writes_when_resumed() {
    let ops = [
        Op::Bound { capacity: 1000, per_call: 9 },
        Op::SetLimits { high: 8, low: 2 },
        Op::React(Reaction::Nothing),
        Op::React(Reaction::Write(900)),
        Op::Write(2500),
        Op::PeerRead(1000),
        Op::Turn,
        Op::Turn,
        Op::PeerRead(1000),
        Op::Turn,
        Op::Turn,
        Op::PeerRead(1000),
        Op::Turn,
        Op::Turn,
        Op::Close,
    ];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_an_echo_that_ends_with_the_peer() {
    let ops = [Op::KeepOpen(false), Op::React(Reaction::Write(5)), Op::PeerSend(5), Op::PeerEnd, Op::Turn];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_reset_while_data_is_queued() {
    let ops = [Op::Bound { capacity: 100, per_call: 9 }, Op::Write(300), Op::PeerReset, Op::Turn, Op::Turn];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_half_close_with_data_queued() {
    let ops = [
        Op::Bound { capacity: 100, per_call: 9 },
        Op::Write(150),
        Op::WriteEof,
        Op::Write(1),
        Op::PeerRead(100),
        Op::PeerSend(7),
        Op::Turn,
        Op::Turn,
    ];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_an_abort_from_within_data_received() {
    let ops = [Op::React(Reaction::Abort), Op::PeerSend(9000), Op::Turn, Op::Write(1), Op::Turn];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_write_eof_while_the_socket_is_lent() {
    insta::assert_snapshot!(transcript(&[
        Op::Write(10),
        Op::DrainWait(true),
        Op::Write(20),
        Op::WriteEof,
        Op::Turn,
        Op::PeerSend(5),
        Op::Turn,
        Op::DrainWait(false),
        Op::Turn
    ]));
}
