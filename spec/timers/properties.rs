//! Properties of timers: `core::timers` and `core::time`.
//!
//! The simulation (`sim::turn`) asserts its invariants after every operation; the properties below it state the
//! rules one by one, on the machine itself. Transcripts show a few scenarios in full.

use proptest::collection::vec;
use proptest::num::f64::ANY as ANY_F64;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tokioloop::core::time::Time;
use tokioloop::core::timers::Timers;
use tokioloop::sim::turn::{Op, When, Work, check_memory, run};

fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

/// Deadlines among which equal ones, neighbours and values without an ordinary order are common.
fn deadline() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (0_i32..20).prop_map(f64::from),
        2 => (0_i32..20).prop_map(|secs| f64::from(secs).next_up()),
        2 => (0_i32..20).prop_map(|secs| f64::from(secs).next_down()),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0)],
        1 => ANY_F64,
    ]
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        3 => (0_u16..500).prop_map(When::After),
        1 => any::<u16>().prop_map(When::After),
        1 => any::<u16>().prop_map(When::Ago),
        1 => Just(When::Same),
        1 => Just(When::JustAfter),
        1 => any::<u8>().prop_map(When::Odd),
    ]
}

/// Operations that are about timers.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let work = prop_oneof![
        2 => when().prop_map(Work::CallAt),
        2 => any::<u8>().prop_map(Work::Cancel),
        1 => any::<u16>().prop_map(Work::Slow),
        1 => Just(Work::Raise),
    ];
    let op = prop_oneof![
        6 => when().prop_map(Op::CallAt),
        3 => work.prop_map(Op::CallAtWork),
        4 => any::<u8>().prop_map(Op::Cancel),
        2 => (0_u16..500).prop_map(Op::Advance),
        1 => any::<u16>().prop_map(Op::Jump),
        4 => any::<bool>().prop_map(|stopping| Op::Turn { stopping }),
    ];
    vec(op, 0..300)
}

fn drain(timers: &mut Timers<usize>, now: Time) -> Vec<usize> {
    std::iter::from_fn(|| timers.pop_due(now)).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_loop_keeps_its_invariants_whatever_is_asked_of_its_timers(ops in ops()) {
        let events = run(&ops);
        prop_assert!(!events.is_empty());
    }

    #[test]
    fn timers_come_by_deadline_then_by_insertion_and_never_early(
        deadlines in vec(deadline(), 0..100), mut clock in vec(deadline(), 1..10),
    ) {
        let mut timers = Timers::new();
        let when: Vec<_> = deadlines.iter().copied().map(Time::from_secs).collect();
        for (item, &when) in when.iter().enumerate() {
            timers.insert(when, item);
        }
        clock.sort_by(f64::total_cmp);
        let mut came = Vec::new();
        // Each instant twice: a clock that stands still brings nothing new.
        for now in clock.into_iter().map(Time::from_secs) {
            for item in drain(&mut timers, now) {
                prop_assert!(when[item] <= now, "timer {} is early", item);
                came.push(item);
            }
            prop_assert_eq!(drain(&mut timers, now), Vec::<usize>::new());
            prop_assert!(timers.next_deadline().is_none_or(|next| next > now));
        }
        let mut expected: Vec<_> = (0..when.len()).collect();
        expected.sort_by_key(|&item| (when[item], item));
        prop_assert_eq!(&came, &expected[..came.len()]);
        prop_assert_eq!(timers.take_all(), &expected[came.len()..]);
    }

    #[test]
    fn the_order_of_instants_is_total_and_that_of_the_numbers(a in ANY_F64, b in ANY_F64) {
        let (left, right) = (Time::from_secs(a), Time::from_secs(b));
        if let Some(order) = a.partial_cmp(&b) {
            prop_assert_eq!(left.cmp(&right), order);
        }
        prop_assert_eq!(left.cmp(&right), right.cmp(&left).reverse());
        prop_assert_eq!(left.is_due(right), left <= right);
        prop_assert_eq!(left == Time::PAST, a.is_nan() || a == f64::NEG_INFINITY);
    }

    #[test]
    fn a_reading_of_the_clock_never_makes_a_timer_early(nanos in any::<u64>(), more in 0_u64..10_000) {
        let (now, later) = (Time::from_nanos(nanos), Time::from_nanos(nanos.saturating_add(more)));
        prop_assert!(now <= later, "the clock goes back");
    }

    #[test]
    fn a_cancelled_timer_comes_back_once_and_never_runs(
        deadlines in vec(deadline(), 1..100), cancelled in vec(any::<prop::sample::Index>(), 0..100), now in deadline(),
    ) {
        let mut timers = Timers::new();
        let keys: Vec<_> =
            deadlines.iter().enumerate().map(|(item, &when)| timers.insert(Time::from_secs(when), item)).collect();
        let mut gone = vec![false; keys.len()];
        for index in cancelled {
            let item = index.index(keys.len());
            prop_assert_eq!(timers.cancel(keys[item]), (!gone[item]).then_some(item));
            gone[item] = true;
            prop_assert_eq!(timers.len(), gone.iter().filter(|gone| !**gone).count());
        }
        for item in drain(&mut timers, Time::from_secs(now)) {
            prop_assert!(!gone[item]);
            gone[item] = true;
            prop_assert_eq!(timers.cancel(keys[item]), None);
        }
    }

    #[test]
    fn memory_follows_the_timers_that_are_set(
        waves in vec((0_usize..4000, 0_usize..4000, any::<bool>(), deadline()), 1..12),
    ) {
        let mut timers = Timers::new();
        let (mut keys, mut stale) = (Vec::new(), Vec::new());
        for (set, cancelled, newest_first, now) in waves {
            for item in 0..set {
                let secs = u32::try_from(item % 40).map_or(0.0, f64::from);
                keys.push(timers.insert(Time::from_secs(secs), item));
            }
            for _ in 0..cancelled.min(keys.len()) {
                let key = if newest_first { keys.pop() } else { Some(keys.swap_remove(keys.len() / 2)) };
                key.and_then(|key| timers.cancel(key));
                stale.extend(key);
                check_memory(&timers);
            }
            drain(&mut timers, Time::from_secs(now));
            check_memory(&timers);
        }
        // Freed and allocated again, memory gives out no key twice.
        prop_assert!(stale.into_iter().all(|key| timers.cancel(key).is_none()));
    }
}

fn transcript(ops: &[Op]) -> String {
    tokioloop::sim::transcript(run(ops))
}

const TURN: Op = Op::Turn { stopping: false };

#[test]
fn transcript_of_equal_and_neighbouring_deadlines() {
    let ops = [Op::CallAt(When::After(500)), Op::CallAt(When::JustAfter), Op::CallAt(When::After(500)), TURN, TURN];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_deadlines_without_an_ordinary_order() {
    let odd = (0..4).map(|which| Op::CallAt(When::Odd(which)));
    insta::assert_snapshot!(transcript(&odd.chain([TURN, TURN]).collect::<Vec<_>>()));
}

#[test]
fn transcript_of_a_timer_that_cancels_the_next() {
    let ops = [Op::CallAtWork(Work::Cancel(0)), Op::CallAt(When::After(60)), TURN, TURN];
    insta::assert_snapshot!(transcript(&ops));
}

#[test]
fn transcript_of_a_clock_that_jumps_over_deadlines() {
    let ops = [Op::CallAt(When::After(9000)), Op::CallAt(When::After(10)), Op::Jump(3600), TURN];
    insta::assert_snapshot!(transcript(&ops));
}
