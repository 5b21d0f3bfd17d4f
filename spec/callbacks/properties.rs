//! Properties of the order of callbacks: `core::ready` and `core::turn`.
//!
//! The simulation (`sim::turn`) asserts its invariants after every operation; the properties below it state the
//! rules one by one, on the machines themselves. Transcripts show a few scenarios in full.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::ready::Ready;
use tokioloop::core::time::Time;
use tokioloop::core::turn::{Wait, plan};
use tokioloop::sim::Decode;
use tokioloop::sim::turn::{Event, Op, When, Work, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<[u8; 4]>().prop_map(Op::from_bytes), 0..300)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_loop_keeps_its_invariants_whatever_is_asked_of_it(ops in ops()) {
        let events = run(&ops);
        prop_assert!(matches!(events.last(), Some(Event::Closed(..))));
    }

    #[test]
    fn a_turn_runs_what_was_queued_before_it_in_that_order_and_nothing_else(
        turns in vec((0_usize..20, vec(0_usize..3, 0..40)), 1..20),
    ) {
        let mut ready = Ready::new();
        let (mut pushed, mut popped) = (0, 0);
        for (before, within) in turns {
            (0..before).for_each(|_| { ready.push(pushed); pushed += 1; });
            let turn = ready.begin();
            let end = pushed;
            let mut within = within.into_iter();
            while let Some(item) = ready.pop(turn) {
                prop_assert_eq!(item, popped);
                popped += 1;
                (0..within.next().unwrap_or(0)).for_each(|_| { ready.push(pushed); pushed += 1; });
            }
            prop_assert_eq!(popped, end);
        }
    }

    #[test]
    fn what_an_exception_cut_off_runs_first_in_the_next_turn(count in 1_usize..50, cut in 0_usize..50, later in 0_usize..9) {
        let cut = cut % count;
        let mut ready = Ready::new();
        (0..count).for_each(|item| ready.push(item));
        let left = ready.begin();
        let ran: Vec<_> = std::iter::from_fn(|| ready.pop(left)).take(cut).collect();
        (count..count + later).for_each(|item| ready.push(item));
        let turn = ready.begin();
        let rest = std::iter::from_fn(|| ready.pop(turn));
        prop_assert!(ran.into_iter().chain(rest).eq(0..count + later));
    }

    #[test]
    fn turns_within_turns_run_everything_once_in_order_and_none_runs_what_came_after_it_began(
        ops in vec(0_u8..5, 0..200),
    ) {
        let mut ready = Ready::new();
        let (mut pushed, mut popped) = (0, 0);
        // The turns under way, the innermost last, each with what had been pushed when it began.
        let mut turns = Vec::new();
        for op in ops {
            match (op, turns.last().copied()) {
                (0 | 1, _) => { ready.push(pushed); pushed += 1; }
                (2, _) => turns.push((ready.begin(), pushed)),
                (3, Some((turn, begun))) => {
                    let item = ready.pop(turn);
                    prop_assert_eq!(item, (popped < begun).then_some(popped));
                    popped += item.map_or(0, |_| 1);
                }
                (_, _) => { turns.pop(); }
            }
            prop_assert_eq!(ready.len(), pushed - popped);
        }
    }

    #[test]
    fn a_turn_finds_what_was_ready_when_it_began_however_long_a_chain_runs(before in 0_u8..40, after in 1_u8..40) {
        let events = run(&[Op::CallSoon(Work::Chain), Op::Turns(before), Op::IoReady, Op::Turns(after)]);
        let mut planned = events.iter().enumerate().filter(|(_, event)| matches!(event, Event::Planned(_)));
        let (began, _) = planned.nth(before.into()).expect("a turn per turn");
        prop_assert_eq!(&events[began..began + 2], [Event::Planned(Wait::Poll), Event::Io]);
    }

    #[test]
    fn a_loop_waits_only_when_it_has_nothing_to_do(busy in any::<bool>(), delay in proptest::option::of(-9_i32..9)) {
        let deadline = delay.map(|delay| Time::at(100 + delay));
        let due = delay.is_some_and(|delay| delay <= 0);
        let expected = if busy || due { Wait::Poll } else { Wait::Park(deadline) };
        prop_assert_eq!(plan(busy, deadline, Time::at(100)), expected);
    }
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops))
}

const TURN: Op = Op::Turn { stopping: false };

#[test]
fn transcript_of_callbacks_that_queue_callbacks() {
    insta::assert_snapshot!(transcript(&[Op::CallSoon(Work::CallSoon), Op::CallSoon(Work::Nothing), TURN, TURN]));
}

#[test]
fn transcript_of_an_exception_that_leaves_the_turn() {
    let ops = [Op::CallSoon(Work::Nothing), Op::CallSoon(Work::Raise), Op::CallSoon(Work::Nothing), TURN, TURN];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_reader_that_waits_behind_a_chain() {
    insta::assert_snapshot!(transcript(&[Op::CallSoon(Work::Chain), TURN, Op::IoReady, Op::Turns(2)]));
}

#[test]
fn transcript_of_io_then_timers_then_what_they_queue() {
    let ops = [Op::CallSoon(Work::CallAt(When::After(0))), Op::CallAt(When::Ago(1)), Op::IoReady, TURN, TURN];
    insta::assert_snapshot!(transcript(&ops));
}
