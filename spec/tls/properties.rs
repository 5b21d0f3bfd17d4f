//! Properties of TLS connections: `core::tls` between a stream of ciphertext and its user, and `core::records`.
//!
//! The simulation (`sim::tls`) asserts its invariants after every operation: plaintext in order, the order of the
//! protocol's callbacks, flow control both ways, what close and abort owe, time-outs. Transcripts show a few scenarios in
//! full.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::records::{RECORD_MAX, Records};
use tokioloop::core::tls::{Admit, Phase, Step, Tls};
use tokioloop::sim::Decode;
use tokioloop::sim::tls::{Event, Op, Reaction, Said, Setup, Side, What, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn setups() -> impl Strategy<Value = Setup> {
    any::<[u8; 4]>().prop_map(Setup::from_bytes)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..200)
}

fn sides() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// Operations of a connection that nobody breaks: writes, small marks, renegotiation, protocols that write back.
fn orderly() -> impl Strategy<Value = Vec<Op>> {
    let reaction = prop_oneof![
        Just(Reaction::Nothing),
        (0_u32..600).prop_map(Reaction::Write),
        (0_u32..600).prop_map(Reaction::WriteTwice),
        Just(Reaction::PauseReading),
        Just(Reaction::ResumeReading),
        Just(Reaction::Exit),
        any::<[u8; 2]>().prop_map(|[high, low]| Reaction::SetLimits(high, low)),
        any::<[u8; 2]>().prop_map(|[high, low]| Reaction::SetReadLimits(high, low)),
    ];
    let said =
        prop_oneof![Just(Said::Ticket), Just(Said::Update), Just(Said::Ask), Just(Said::Renew), Just(Said::Nothing)];
    let op = prop_oneof![
        1 => sides().prop_map(Op::Start),
        6 => (sides(), 0_u32..2000).prop_map(|(side, len)| Op::Write(side, len)),
        1 => (sides(), 0_u32..300).prop_map(|(side, len)| Op::Inside(side, Reaction::Write(len))),
        1 => sides().prop_map(|side| Op::Inside(side, Reaction::Exit)),
        3 => (sides(), reaction).prop_map(|(side, reaction)| Op::React(side, reaction)),
        2 => (sides(), said).prop_map(|(side, said)| Op::Say(side, said)),
        5 => (sides(), 0_u32..3000).prop_map(|(side, max)| Op::Deliver(side, max)),
        2 => (sides(), 0_u32..30).prop_map(|(side, max)| Op::Deliver(side, max)),
        1 => (sides(), any::<[u8; 2]>()).prop_map(|(side, [high, low])| Op::SetLimits(side, high, low)),
        1 => (sides(), any::<[u8; 2]>()).prop_map(|(side, [high, low])| Op::SetReadLimits(side, high, low)),
        1 => (sides(), any::<[u8; 2]>()).prop_map(|(side, [high, low])| Op::Bound(side, high, low)),
        1 => (sides(), 0_u16..100).prop_map(|(side, size)| Op::SetBuffer(side, size)),
        1 => sides().prop_map(Op::PauseReading),
        1 => sides().prop_map(Op::ResumeReading),
        6 => Just(Op::Turn),
    ];
    vec(op, 0..150)
}

/// As [`orderly`], and either end may end it, in any way and from within any callback.
fn disorderly() -> impl Strategy<Value = Vec<Op>> {
    let end = prop_oneof![
        4 => Just(Reaction::Close),
        2 => Just(Reaction::Abort),
        2 => Just(Reaction::Raise),
        1 => (0_u32..600).prop_map(Reaction::WriteTwice),
    ];
    let op = prop_oneof![
        2 => sides().prop_map(Op::Close),
        1 => sides().prop_map(Op::Abort),
        4 => (sides(), end.clone()).prop_map(|(side, end)| Op::React(side, end)),
        1 => (sides(), end).prop_map(|(side, end)| Op::Inside(side, end)),
        1 => sides().prop_map(Op::Cut),
        1 => sides().prop_map(Op::Clock),
        1 => Just(Op::Reset),
        1 => sides().prop_map(Op::Break),
        3 => (sides(), 1_u32..9000).prop_map(|(side, max)| Op::Deliver(side, max)),
        2 => Just(Op::Turn),
    ];
    (orderly(), vec((any::<prop::sample::Index>(), op), 1..12)).prop_map(|(orderly, ends)| {
        let mut ops = handshake();
        ops.extend(orderly);
        for (at, end) in ends {
            ops.insert(at.index(ops.len()), end);
        }
        ops
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_connection_keeps_its_invariants_whatever_happens_to_it(setup in setups(), ops in ops()) {
        drop(run(setup, &ops));
    }

    #[test]
    fn a_connection_keeps_its_invariants_however_it_is_ended(setup in setups(), ops in disorderly()) {
        drop(run(setup, &ops));
    }

    #[test]
    fn nothing_follows_an_abort_or_an_exception(
        setup in setups(), len in 1_u32..2000, aborts: bool, pieces in 1_u32..3000,
    ) {
        let end = if aborts { Reaction::Abort } else { Reaction::Raise };
        let mut ops = handshake();
        ops.extend([Op::Write(Side::Server, len), Op::Close(Side::Server), Op::React(Side::Client, Reaction::Nothing)]);
        ops.extend([Op::React(Side::Client, end), Op::React(Side::Client, end)]);
        ops.extend([Op::Deliver(Side::Server, pieces), Op::Deliver(Side::Server, 99_999), Op::Turn, Op::Turn]);
        drop(run(setup, &ops));
    }

    #[test]
    fn an_exit_during_a_write_keeps_none_of_it_back(
        setup in setups(), lens in vec(1_u32..3000, 1..4), exits in 1_usize..12, early: bool,
    ) {
        // The engine takes at once what it is given.
        let setup = Setup { strict: false, fragment: 1024, ..setup };
        let mut ops = vec![Op::Inside(Side::Client, Reaction::Exit); exits];
        ops.extend(lens.iter().map(|len| Op::Write(Side::Client, *len)));
        ops.splice(if early { ops.len()..ops.len() } else { 0..0 }, handshake());
        drop(run(setup, &ops));
    }

    #[test]
    fn a_long_write_ends_where_the_stream_below_breaks(setup in setups(), len in 1_u32..6000, rest in disorderly()) {
        let mut ops = handshake();
        ops.extend([Op::Break(Side::Client), Op::Write(Side::Client, len)]);
        ops.extend(rest);
        drop(run(setup, &ops));
    }

    #[test]
    fn a_slow_stream_below_gets_everything_before_it_is_closed(
        setup in setups(), lens in vec(1_u32..3000, 1..5), pieces in vec(1_u32..900, 0..20),
    ) {
        let setup = Setup { stacked: true, quick: [true, false], buffers: [0; 2], strict: false, ..setup };
        let mut ops = handshake();
        ops.extend([Op::SetLimits(Side::Client, 8, 1), Op::Bound(Side::Client, 4, 1)]);
        ops.extend(lens.iter().map(|len| Op::Write(Side::Client, *len)));
        ops.push(Op::Close(Side::Client));
        ops.extend(pieces.iter().flat_map(|len| [Op::Deliver(Side::Client, *len), Op::Turn]));
        let events = run(setup, &ops);
        let got: usize = events.iter().map(|event| if let Event(Side::Server, What::Data(n)) = event { *n } else { 0 }).sum();
        prop_assert_eq!(got as u64, lens.iter().copied().map(u64::from).sum::<u64>());
    }

    #[test]
    fn a_paused_protocol_that_closes_is_lost_once_its_peer_is(
        setup in setups(), len in 1_u32..2000, first: bool, cut: bool,
    ) {
        let setup = Setup { stacked: false, made: false, ..setup };
        let mut ops = handshake();
        ops.extend([Op::PauseReading(Side::Client), Op::Write(Side::Server, len)]);
        if first {
            ops.push(Op::Close(Side::Client));
        }
        ops.extend([Op::Deliver(Side::Server, 99_999), if cut { Op::Cut(Side::Server) } else { Op::Close(Side::Server) }]);
        ops.extend([Op::Deliver(Side::Server, 99_999), Op::Deliver(Side::Server, 1), Op::Turn]);
        ops.push(Op::Close(Side::Client));
        drop(run(setup, &ops));
    }

    #[test]
    fn a_connection_that_nobody_breaks_delivers_everything_and_needs_no_time_out(setup in setups(), ops in orderly()) {
        let events = run(Setup { strict: false, ..setup }, &ops);
        // OpenSSL cannot shut down in a new handshake.
        let renewed = ops.iter().any(|op| matches!(op, Op::Say(_, Said::Ask | Said::Renew)));
        prop_assert!(renewed || !events.iter().any(|event| matches!(event.1, What::Failed | What::Aborted)));
        for side in Side::BOTH {
            let lost = events.iter().filter(|event| **event == Event(side, What::Lost)).count();
            prop_assert_eq!(lost, 1);
        }
    }

    #[test]
    fn close_delivers_all_that_was_written_before_it(
        setup in setups(), mut ops in orderly(), closer in sides(), late in 1_u32..500, rest in orderly(),
    ) {
        // A second end that closes need not receive; the simulation asks for the rest.
        ops.extend([Op::Close(closer), Op::Write(closer, late)]);
        ops.extend(rest);
        let events = run(Setup { strict: false, ..setup }, &ops);
        prop_assert!(events.iter().any(|event| matches!(event, Event(side, What::Dropped(_)) if *side == closer)));
    }

    #[test]
    fn callbacks_come_in_the_order_of_the_grammar(setup in setups(), ops in ops()) {
        let events = run(setup, &ops);
        for side in Side::BOTH {
            let (mut made, mut paused, mut ended, mut lost) = (setup.made, setup.late && setup.made && !setup.stacked, false, false);
            for what in events.iter().filter(|event| event.0 == side).map(|event| event.1) {
                match what {
                    What::Made => prop_assert!(!std::mem::replace(&mut made, true) && !lost),
                    What::Data(n) => prop_assert!(made && n > 0 && !ended && !lost),
                    What::Eof => prop_assert!(made && !std::mem::replace(&mut ended, true) && !lost),
                    What::Pause => prop_assert!(made && !std::mem::replace(&mut paused, true) && !lost),
                    What::Resume => prop_assert!(std::mem::replace(&mut paused, false) && !lost),
                    What::Lost => prop_assert!(made && !std::mem::replace(&mut lost, true)),
                    What::Sent(_) | What::Closed | What::Aborted => prop_assert!(!lost),
                    What::Dropped(_) | What::Failed => {}
                }
            }
            // A connection inside one that is never made never begins.
            prop_assert!(made == lost || (setup.stacked && setup.made));
        }
    }

    #[test]
    fn a_stream_that_ends_anywhere_is_one_eof_and_one_loss(
        setup in setups(), lens in vec(1_u32..2000, 1..8), arrive in 0_u32..12_000, paused: bool,
    ) {
        // A connection inside another ends with it, whatever waits to be read.
        let (paused, buffers) = if setup.stacked { (false, [0; 2]) } else { (paused, setup.buffers) };
        let setup = Setup { made: true, buffers, ..setup };
        let mut ops = handshake();
        ops.extend(lens.iter().map(|len| Op::Write(Side::Server, *len)));
        ops.extend([Op::Deliver(Side::Server, arrive), Op::Cut(Side::Server)]);
        if paused {
            ops.insert(0, Op::PauseReading(Side::Client));
        }
        let events = run(setup, &ops);
        let count = |what: What| events.iter().filter(|event| **event == Event(Side::Client, what)).count();
        prop_assert_eq!((count(What::Eof), count(What::Lost)), (1, 1));
    }

    #[test]
    fn a_close_that_waits_for_the_peer_ends_with_it(setup in setups(), len in 1_u32..2000, paused: bool) {
        let mut ops = handshake();
        ops.extend([Op::Say(Side::Server, Said::Ask), Op::Deliver(Side::Server, 9999), Op::Write(Side::Client, len)]);
        if paused {
            ops.push(Op::PauseReading(Side::Client));
        }
        ops.extend([Op::Close(Side::Client), Op::Cut(Side::Server), Op::Deliver(Side::Server, 1), Op::Turn]);
        let events = run(Setup { stacked: false, made: false, ..setup }, &ops);
        let client: Vec<_> = events.iter().filter(|event| event.0 == Side::Client).map(|event| event.1).collect();
        prop_assert!(client.contains(&What::Eof) && client.contains(&What::Lost));
        prop_assert!(!client.contains(&What::Failed));
    }

    #[test]
    fn an_upgrade_that_does_not_complete_loses_the_protocol_once(
        flights in 2_u8..5, arrive in 0_u32..100, end in prop_oneof![Just(Op::Reset), Just(Op::Cut(Side::Server)), Just(Op::Clock(Side::Client)), Just(Op::Garbage(Side::Server, 40)), Just(Op::Abort(Side::Client)), Just(Op::Close(Side::Client))],
    ) {
        let setup = Setup { made: true, flights: flights + 1, ..Setup::default() };
        let ops = [Op::Start(Side::Client), Op::Deliver(Side::Client, arrive), end, Op::Turn];
        let events = run(setup, &ops);
        prop_assert_eq!(events.iter().filter(|event| **event == Event(Side::Client, What::Lost)).count(), 1);
        prop_assert!(!events.contains(&Event(Side::Client, What::Made)));
    }

    #[test]
    fn the_tail_of_a_stream_of_records_is_what_follows_the_last_whole_one(
        bodies in vec(prop_oneof![0_usize..40, Just(16_384), Just(RECORD_MAX - 5)], 0..12),
        garbage in vec(any::<u8>(), 0..12),
        cuts in vec(1_usize..20_000, 1..60),
    ) {
        let mut stream = Vec::new();
        let mut borders = vec![0];
        for (at, body) in bodies.iter().enumerate() {
            let kind = 20 + u8::try_from(at % 5).unwrap_or_default();
            let [.., high, low] = body.to_be_bytes();
            stream.extend([kind, 3, 3, high, low]);
            stream.resize(stream.len() + body, kind);
            borders.push(stream.len());
        }
        let whole = stream.len();
        stream.extend(&garbage);
        let (mut records, mut fed) = (Records::default(), 0);
        for cut in cuts {
            let piece = &stream[fed..stream.len().min(fed + cut)];
            records.handle_fed(piece);
            fed += piece.len();
            let last = borders.iter().rev().find(|border| **border <= fed).copied().unwrap_or_default();
            // Never more than that: the engine would not be asked for what is whole.
            prop_assert!(records.tail() <= fed - last);
            prop_assert!(fed > whole || records.tail() == fed - last);
            // What is no record is the engine's to refuse.
            let strayed = fed >= whole + 5 && !(20..=24).contains(&garbage[0]);
            prop_assert!(!strayed || records.tail() == 0);
        }
    }
}

#[test]
fn the_marks_are_asyncios_at_first() {
    let tls = Tls::<Vec<u8>>::new(false);
    assert_eq!((tls.limits(), tls.read_limits()), ((131_072, 524_288), (65_536, 262_144)));
}

#[test]
fn an_exit_while_what_arrived_is_dropped_keeps_no_connection_from_closing() {
    let ops = [
        Op::Start(Side::Client),
        Op::Start(Side::Server),
        Op::SetLimits(Side::Server, 56, 0),
        Op::Deliver(Side::Client, 17),
        Op::React(Side::Server, Reaction::Nothing),
        Op::React(Side::Server, Reaction::PauseReading),
        Op::React(Side::Server, Reaction::Exit),
        Op::Deliver(Side::Server, 17),
        Op::Write(Side::Server, 916),
        Op::Write(Side::Server, 1501),
        Op::Bound(Side::Server, 68, 68),
        Op::SetLimits(Side::Server, 178, 45),
        Op::Write(Side::Client, 1),
        Op::Deliver(Side::Client, 10),
        Op::Deliver(Side::Server, 2129),
        Op::Close(Side::Server),
    ];
    // `resume_writing` is called for what the close sends.
    let events = run(Setup { flights: 2, fragment: 51, strict: true, ..Setup::default() }, &ops);
    assert!(events.contains(&Event(Side::Server, What::Lost)));
}

/// A machine up to the end of its handshake.
fn wrapped() -> Tls<Vec<u8>> {
    let mut tls = Tls::new(false);
    assert!(tls.handle_made().has(Step::HANDSHAKE) && tls.handle_handshake(true).has(Step::MADE));
    assert_eq!(tls.phase(), Phase::Wrapped);
    tls
}

#[test]
fn a_handshake_fails_once() {
    let mut tls = Tls::<Vec<u8>>::new(false);
    assert!(!tls.fail_handshake() && tls.handle_made().has(Step::HANDSHAKE));
    assert!(tls.fail_handshake() && !tls.fail_handshake());
}

#[test]
fn a_closing_ends_once_and_not_behind_an_abort() {
    for aborts in [false, true] {
        let mut tls = wrapped();
        assert!(!tls.is_shutdown_overdue() && tls.close().has(Step::FLUSHED) && tls.is_shutdown_overdue());
        assert!(tls.begin_unwrap().has(Step::UNWRAP) && tls.is_shutdown_overdue());
        if aborts {
            assert!(tls.abort().has(Step::ABORT) && !tls.is_shutdown_overdue());
        } else {
            assert!(tls.handle_unwrapped(true).has(Step::CLOSE));
        }
        assert!(tls.handle_unwrapped(true).is_none());
    }
}

#[test]
fn what_nobody_encrypts_is_handed_out_when_the_stream_below_is_lost() {
    let mut tls = wrapped();
    assert_eq!(tls.admit(), Admit::Encrypt);
    assert!(tls.enqueue_rest(vec![1, 2], 1).is_none() && tls.handle_lost().has(Step::DISCARD));
    assert!(tls.enqueue(vec![3]).has(Step::DISCARD) && tls.enqueue_rest(vec![4], 0).has(Step::DISCARD));
    assert_eq!(tls.take_discarded(), [vec![1, 2], vec![3], vec![4]]);
    assert!(tls.take_discarded().is_empty());
}

/// Both ends up to the end of the handshake, whatever its flights.
fn handshake() -> Vec<Op> {
    let mut ops = vec![Op::Start(Side::Client), Op::Start(Side::Server)];
    for _ in 0..8 {
        ops.extend([Op::Deliver(Side::Client, 9999), Op::Deliver(Side::Server, 9999), Op::Turn]);
    }
    ops
}

fn transcript(setup: Setup, ops: &[Op]) -> String {
    let mut all = handshake();
    all.extend(ops);
    tokioloop::sim::transcript(run(setup, &all))
}

#[test]
fn transcript_of_a_question_an_answer_and_a_close() {
    let ops = [
        Op::React(Side::Server, Reaction::Write(30)),
        Op::Write(Side::Client, 20),
        Op::Deliver(Side::Client, 10),
        Op::Deliver(Side::Client, 99),
        Op::Deliver(Side::Server, 99),
        Op::Close(Side::Client),
    ];
    insta::assert_snapshot!(transcript(Setup { tickets: true, ..Setup::default() }, &ops));
}

#[test]
fn transcript_of_what_is_written_before_the_handshake() {
    let ops = [Op::Write(Side::Client, 10), Op::Write(Side::Client, 600), Op::Start(Side::Client)];
    let ops: Vec<_> = ops.into_iter().chain(handshake()).collect();
    insta::assert_snapshot!(tokioloop::sim::transcript(run(Setup::default(), &ops)));
}

#[test]
fn transcript_of_a_close_while_a_new_handshake_holds_data_back() {
    let ops = [
        Op::Say(Side::Server, Said::Ask),
        Op::Deliver(Side::Server, 99),
        Op::Write(Side::Client, 50),
        Op::Close(Side::Client),
        Op::Turn,
        Op::Deliver(Side::Client, 999),
        Op::Deliver(Side::Server, 999),
        Op::Deliver(Side::Client, 999),
    ];
    insta::assert_snapshot!(transcript(Setup::default(), &ops));
}

#[test]
fn transcript_of_a_paused_protocol_whose_peer_goes() {
    let ops = [
        Op::PauseReading(Side::Client),
        Op::Write(Side::Server, 40),
        Op::Close(Side::Server),
        Op::Deliver(Side::Server, 999),
        Op::Turn,
        Op::Deliver(Side::Server, 999),
        Op::Turn,
        Op::ResumeReading(Side::Client),
        Op::Turn,
    ];
    insta::assert_snapshot!(transcript(Setup { quick: [false, true], ..Setup::default() }, &ops));
}

#[test]
fn transcript_of_a_small_buffer_and_a_peer_that_goes() {
    let ops = [
        Op::Write(Side::Server, 40),
        Op::Close(Side::Server),
        Op::Deliver(Side::Server, 999),
        Op::Deliver(Side::Server, 999),
        Op::Turn,
    ];
    insta::assert_snapshot!(transcript(Setup { quick: [false, true], buffers: [16, 0], ..Setup::default() }, &ops));
}

#[test]
fn transcript_of_a_slow_peer() {
    let ops = [
        Op::Bound(Side::Client, 8, 2),
        Op::SetLimits(Side::Client, 20, 4),
        Op::React(Side::Client, Reaction::Write(7)),
        Op::Write(Side::Client, 100),
        Op::Write(Side::Client, 300),
        Op::Close(Side::Client),
        Op::Deliver(Side::Client, 300),
        Op::Deliver(Side::Client, 300),
    ];
    insta::assert_snapshot!(transcript(Setup::default(), &ops));
}

#[test]
fn transcript_of_an_abort_from_within_data_received() {
    let ops = [
        Op::React(Side::Server, Reaction::Abort),
        Op::Write(Side::Client, 600),
        Op::Deliver(Side::Client, 9999),
        Op::Write(Side::Server, 1),
        Op::Turn,
    ];
    insta::assert_snapshot!(transcript(Setup::default(), &ops));
}

#[test]
fn transcript_of_a_garbled_record() {
    let ops = [
        Op::Write(Side::Client, 10),
        Op::Write(Side::Client, 10),
        Op::Flip(Side::Client, 25),
        Op::Deliver(Side::Client, 999),
        Op::Turn,
    ];
    insta::assert_snapshot!(transcript(Setup::default(), &ops));
}

#[test]
fn transcript_of_tls_inside_tls() {
    let ops = [Op::Write(Side::Client, 20), Op::Deliver(Side::Client, 999), Op::Close(Side::Server)];
    insta::assert_snapshot!(transcript(Setup { stacked: true, ..Setup::default() }, &ops));
}

#[test]
fn transcript_of_a_peer_that_does_not_answer_close_notify() {
    let ops = [Op::Close(Side::Client), Op::Write(Side::Client, 1), Op::Clock(Side::Client), Op::Turn, Op::Turn];
    insta::assert_snapshot!(transcript(Setup::default(), &ops));
}
