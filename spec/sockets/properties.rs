//! Properties of `sock_*` operations: `core::sockop`, alone and over the table of fds.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::sockop::{Dir, Misuse, Next, SockOp};
use tokioloop::sim::interest::{Act, Event, Op, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

/// What one system call does.
#[derive(Clone, Copy, Debug)]
enum Call {
    Blocks,
    Moves(usize),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    vec(prop_oneof![Just(Call::Blocks), (1_usize..50).prop_map(Call::Moves)], 0..60)
}

fn direction() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Read), Just(Dir::Write)]
}

/// Operations on one socket that is used by `sock_*` alone.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => direction().prop_map(|dir| Op::Act(Act::Start { fd: 0, dir })),
        2 => (0_u8..5).prop_map(|nth| Op::Act(Act::Cancel { nth })),
        3 => (0_u8..60).prop_map(|n| Op::Arrive { fd: 0, n }),
        3 => (0_u8..60).prop_map(|n| Op::MakeRoom { fd: 0, n }),
        1 => (0_u8..60).prop_map(|n| Op::Act(Act::Move { fd: 0, dir: Dir::Read, n })),
        5 => Just(Op::Look),
    ];
    vec(op, 0..120)
}

/// Operations on a few numbers whose files and socket objects change.
fn changing() -> impl Strategy<Value = Vec<Op>> {
    let fd = || 0_u8..3;
    let act = prop_oneof![
        2 => Just(Act::Open { socket: true }),
        1 => fd().prop_map(|fd| Act::Duplicate { fd }),
        2 => (fd(), fd()).prop_map(|(fd, by)| Act::Replace { fd, by }),
        2 => fd().prop_map(|fd| Act::Close { fd }),
        6 => (fd(), direction()).prop_map(|(fd, dir)| Act::Start { fd, dir }),
        1 => (0_u8..5).prop_map(|nth| Act::Cancel { nth }),
    ];
    let op = prop_oneof![
        6 => act.prop_map(Op::Act),
        2 => (fd(), 0_u8..40).prop_map(|(fd, n)| Op::Arrive { fd, n }),
        1 => (fd(), 0_u8..40).prop_map(|(fd, n)| Op::MakeRoom { fd, n }),
        2 => Just(Op::Look),
    ];
    vec(op, 0..80)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_operation_is_told_of_the_file_that_its_socket_has_whatever_had_that_number(ops in changing()) {
        let events = run(&ops);
        prop_assert_eq!(events.last(), Some(&Event::Idle));
    }

    #[test]
    fn an_operation_moves_all_it_is_to_and_ends_once(total in 1_usize..300, calls in calls(), dir in direction()) {
        let mut op = SockOp::new(dir);
        op.set_total(total);
        prop_assert!(op.is_fresh());
        let mut moved = 0;
        let mut next = op.poll();
        for call in calls {
            match (next, call) {
                (Ok(Next::Try), Call::Blocks) => next = Ok(op.handle_blocked()),
                (Ok(Next::Try), Call::Moves(n)) => {
                    let n = n.min(total - moved);
                    moved += n;
                    next = Ok(op.handle_progress(n));
                }
                (Ok(Next::Wait(waits)), _) => {
                    prop_assert_eq!(waits, dir);
                    next = op.poll();
                }
                (Ok(Next::Finish), _) => next = op.poll(),
                (Err(misuse), _) => prop_assert_eq!(misuse, Misuse::Reused),
                (Ok(Next::Defer), _) => prop_assert!(false, "it does not connect"),
            }
            prop_assert_eq!(op.moved(), moved);
            prop_assert_eq!(op.is_done(), moved == total);
        }
    }

    #[test]
    fn an_operation_without_a_total_ends_with_its_first_success(blocks in 0_usize..5, n in 0_usize..100) {
        let mut op = SockOp::new(Dir::Read);
        for _ in 0..blocks {
            prop_assert_eq!(op.poll(), Ok(Next::Try));
            prop_assert_eq!(op.handle_blocked(), Next::Wait(Dir::Read));
        }
        prop_assert_eq!(op.poll(), Ok(Next::Try));
        prop_assert_eq!(op.handle_progress(n), Next::Finish);
        prop_assert_eq!(op.poll(), Err(Misuse::Reused));
    }

    #[test]
    fn an_operation_that_ends_while_waiting_takes_its_wait_back_and_only_then(waits in any::<bool>(), done in any::<bool>()) {
        let mut op = SockOp::new(Dir::Write);
        if waits {
            prop_assert_eq!(op.poll(), Ok(Next::Try));
            prop_assert_eq!(op.handle_blocked(), Next::Wait(Dir::Write));
        } else if done {
            prop_assert_eq!(op.poll(), Ok(Next::Try));
            prop_assert_eq!(op.handle_progress(1), Next::Finish);
        }
        prop_assert_eq!(op.handle_ended(), waits);
        prop_assert!(op.is_done() && !op.handle_ended());
        prop_assert_eq!(op.poll(), Err(Misuse::Reused));
    }

    #[test]
    fn operations_on_a_socket_register_it_once_and_miss_no_readiness(ops in ops()) {
        let events = run(&[&[Op::Act(Act::Open { socket: true })], &ops[..]].concat());
        let told = events.iter().filter(|event| matches!(event, Event::Told { .. })).count();
        prop_assert!(told <= 1, "{} calls of epoll_ctl", told);
    }
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops).into_iter().take_while(|event| *event != Event::Idle))
}

const OPEN: Op = Op::Act(Act::Open { socket: true });
const RECV: Op = Op::Act(Act::Start { fd: 0, dir: Dir::Read });
const SEND: Op = Op::Act(Act::Start { fd: 0, dir: Dir::Write });

#[test]
fn transcript_of_a_ping_pong() {
    let arrive = Op::Arrive { fd: 0, n: 16 };
    let room = Op::MakeRoom { fd: 0, n: 16 };
    insta::assert_snapshot!(transcript(&[OPEN, RECV, arrive, Op::Look, SEND, room, Op::Look, RECV, arrive, Op::Look]));
}

#[test]
fn transcript_of_a_receive_cancelled_between_readiness_and_its_turn() {
    let cancel = Op::Act(Act::Cancel { nth: 0 });
    let arrive = Op::Arrive { fd: 0, n: 5 };
    insta::assert_snapshot!(transcript(&[OPEN, RECV, arrive, cancel, RECV, Op::Look]));
}
