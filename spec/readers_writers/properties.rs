//! Properties of watchers on file descriptors: `core::interest` over a simulated kernel.
//!
//! The simulation (`sim::interest`) asserts its invariants after every operation: level-triggered for the user, no
//! stale watcher reached, no edge lost, the kernel's registration as wanted. Transcripts show a few scenarios in full.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::sockop::Dir;
use tokioloop::sim::Decode;
use tokioloop::sim::interest::{Act, Event, Op, Reaction, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    let default = ProptestConfig::default();
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), cases: 4 * default.cases, ..default }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..200)
}

fn direction() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Read), Just(Dir::Write)]
}

/// Operations on two fds that are closed, reopened and watched all the time.
fn reuse() -> impl Strategy<Value = Vec<Op>> {
    let fd = 0_u8..2;
    let act = prop_oneof![
        2 => Just(Act::Open { socket: true }),
        1 => Just(Act::Open { socket: false }),
        2 => fd.clone().prop_map(|fd| Act::Close { fd }),
        2 => (fd.clone(), direction()).prop_map(|(fd, dir)| Act::Reopen { fd, dir }),
        3 => (fd.clone(), direction()).prop_map(|(fd, dir)| Act::Watch { fd, dir }),
        2 => (fd.clone(), direction()).prop_map(|(fd, dir)| Act::Unwatch { fd, dir }),
        3 => (fd.clone(), direction()).prop_map(|(fd, dir)| Act::Start { fd, dir }),
        1 => (0_u8..4).prop_map(|nth| Act::Cancel { nth }),
        1 => fd.clone().prop_map(|fd| Act::Duplicate { fd }),
    ];
    let op = prop_oneof![
        6 => act.clone().prop_map(Op::Act),
        2 => act.prop_map(|act| Op::React(Reaction::Do(act))),
        2 => (fd.clone(), 0_u8..40).prop_map(|(fd, n)| Op::Arrive { fd, n }),
        1 => (fd.clone(), 0_u8..40).prop_map(|(fd, n)| Op::MakeRoom { fd, n }),
        1 => fd.prop_map(|fd| Op::End { fd }),
        4 => Just(Op::Look),
    ];
    vec(op, 0..120)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn watchers_keep_their_invariants_whatever_users_do(ops in ops()) {
        prop_assert!(!run(&ops).is_empty());
    }

    #[test]
    fn nobody_is_reached_through_a_number_that_names_another_file(ops in reuse()) {
        prop_assert!(!run(&ops).is_empty());
    }

    #[test]
    fn a_reader_is_told_once_per_look_until_all_is_read(unread in 1_u8..60, step in 1_u8..20) {
        let looks = usize::from(unread.div_ceil(step));
        let mut ops = vec![
            Op::Act(Act::Open { socket: true }),
            Op::Act(Act::Watch { fd: 0, dir: Dir::Read }),
            Op::Arrive { fd: 0, n: unread },
        ];
        for _ in 0..looks + 3 {
            ops.extend([Op::React(Reaction::Move(step)), Op::Look]);
        }
        let told = run(&ops).iter().filter(|event| matches!(event, Event::Ran { .. })).count();
        prop_assert_eq!(told, looks);
    }

    #[test]
    fn a_closed_file_that_lives_on_elsewhere_is_forgotten(
        watched in any::<bool>(), others in 0_u8..6, arrivals in 20_usize..60,
    ) {
        let before = if watched { READ } else { RECV };
        let mut ops = vec![OPEN, before, ARRIVE, Op::Look, Op::Look];
        for fd in 1..=others {
            ops.extend([OPEN, Op::Act(Act::Watch { fd, dir: Dir::Read })]);
        }
        // The duplicate has the next number, and keeps the file open.
        ops.extend([Op::Act(Act::Duplicate { fd: 0 }), CLOSE]);
        if watched {
            ops.push(Op::Act(Act::Unwatch { fd: 0, dir: Dir::Read }));
        }
        for _ in 0..arrivals {
            ops.extend([Op::Arrive { fd: others + 1, n: 1 }, Op::Look]);
        }
        let events = run(&ops);
        prop_assert_eq!(events.iter().filter(|event| **event == Event::Renewed).count(), 1);
    }

    #[test]
    fn no_number_makes_the_table_large(numbers in vec(any::<u32>(), 1..20), dir in direction()) {
        let ops: Vec<_> = numbers.into_iter().map(|number| Op::Act(Act::Far { number, dir })).collect();
        let ran = run(&ops).iter().any(|event| matches!(event, Event::Ran { .. }));
        prop_assert!(!ran, "no file has such a number");
    }
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops).into_iter().take_while(|event| *event != Event::Idle))
}

const OPEN: Op = Op::Act(Act::Open { socket: true });
const READ: Op = Op::Act(Act::Watch { fd: 0, dir: Dir::Read });
const WRITE: Op = Op::Act(Act::Watch { fd: 0, dir: Dir::Write });
const CLOSE: Op = Op::Act(Act::Close { fd: 0 });
const RECV: Op = Op::Act(Act::Start { fd: 0, dir: Dir::Read });
const ARRIVE: Op = Op::Arrive { fd: 0, n: 20 };

#[test]
fn transcript_of_one_fd_watched_both_ways() {
    let ops = [OPEN, READ, WRITE, Op::React(Reaction::Unwatch), Op::Look, ARRIVE, Op::Look, Op::Look];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_an_fd_closed_under_its_reader_and_given_out_again() {
    let ops = [OPEN, READ, ARRIVE, CLOSE, OPEN, ARRIVE, WRITE, Op::React(Reaction::Unwatch), Op::Look, Op::Look];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_reader_replaced_after_its_fd_was_given_out_again() {
    insta::assert_snapshot!(transcript(&[OPEN, READ, CLOSE, OPEN, READ, ARRIVE, Op::Look, Op::Look]));
}

#[test]
fn transcript_of_a_regular_file_that_cannot_be_watched() {
    insta::assert_snapshot!(transcript(&[Op::Act(Act::Open { socket: false }), READ, WRITE, Op::Look]));
}

#[test]
fn transcript_of_a_number_that_names_a_regular_file_for_a_while() {
    let send = Op::Act(Act::Start { fd: 0, dir: Dir::Write });
    let file = Op::Act(Act::Open { socket: false });
    insta::assert_snapshot!(transcript(&[OPEN, send, CLOSE, file, WRITE, CLOSE, OPEN, WRITE, Op::Look]));
}

#[test]
fn transcript_of_a_receive_beside_a_reader() {
    let ops = [OPEN, RECV, READ, ARRIVE, Op::Look, Op::Look, Op::Act(Act::Unwatch { fd: 0, dir: Dir::Read }), Op::Look];
    insta::assert_snapshot!(transcript(&ops));
}
