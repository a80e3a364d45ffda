//! The guard's life as tables: what happens, second by second, and what it does about it.

use super::*;
use crate::lease::{OnApiLoss, Renewal};

const ALL: Rules = Rules::all();

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn renewing(on_api_loss: OnApiLoss) -> Orders {
    Orders {
        renewal: Some(Renewal {
            every: s(2),
            stop_after: s(10),
            takeover_after: s(15),
        }),
        on_api_loss,
    }
}

fn seen(whose: Whose, orders: Orders) -> Input {
    Input::Read(Seen {
        whose,
        epoch: 4,
        orders,
    })
}

fn take(orders: Orders) -> Action {
    Action::Write(Change::Take {
        known: 4,
        promise: orders.promise(),
    })
}

fn renew(orders: Orders) -> Action {
    Action::Write(Change::Renew {
        promise: orders.promise(),
    })
}

impl Guard {
    #[track_caller]
    fn at(&mut self, second: u64, input: Input, expected: &[Action]) -> &mut Self {
        assert_eq!(
            self.step(s(second), input, ALL),
            expected,
            "{input:?} at {second} s: {self:?}"
        );
        self
    }
}

/// Read, won and answering at second 0.
fn holding(orders: Orders) -> Guard {
    let mut guard = Guard::new(s(0));
    guard.at(0, Input::Tick, &[Action::Read]);
    guard.at(0, seen(Whose::Free, orders), &[take(orders)]);
    guard.at(0, Input::Written, &[Action::Start]);
    guard.at(0, Input::Answered, &[]);
    guard
}

#[test]
fn the_engine_starts_only_when_the_lease_is_won() {
    let mut guard = Guard::new(s(0));
    guard.at(0, Input::Tick, &[Action::Read]);
    guard.at(0, Input::Away, &[]).at(1, Input::Tick, &[Action::Read]);
    guard.at(1, seen(Whose::Others, Orders::default()), &[]);
    guard.at(2, Input::Tick, &[Action::Read]);
    guard.at(2, seen(Whose::Free, Orders::default()), &[take(Orders::default())]);
    guard.at(2, Input::Conflict, &[Action::Read]);
    guard.at(3, seen(Whose::Others, Orders::default()), &[]);
    guard.at(4, Input::Tick, &[Action::Read]);
    guard.at(4, seen(Whose::Free, Orders::default()), &[take(Orders::default())]);
    guard.at(4, Input::Written, &[Action::Start]);
    assert_eq!(guard.epoch, 5);
}

#[test]
fn a_take_whose_answer_was_lost_is_found_by_reading() {
    let mut guard = Guard::new(s(0));
    guard.at(0, Input::Tick, &[Action::Read]);
    let orders = renewing(OnApiLoss::Stop);
    guard.at(0, seen(Whose::Free, orders), &[take(orders)]);
    guard.at(2, Input::Away, &[]).at(3, Input::Tick, &[Action::Read]);
    guard.at(3, seen(Whose::Mine, orders), &[take(orders)]);
    guard.at(4, Input::Written, &[Action::Start]);
    assert_eq!(guard.deadline(ALL), Some(s(13)));
}

// found by the model: the promise of a take was over when its answer came, and the engine started on a Lease that had expired
#[test]
fn a_take_that_was_answered_too_late_is_no_win() {
    let orders = renewing(OnApiLoss::Stop);
    let mut guard = Guard::new(s(0));
    guard.at(0, Input::Tick, &[Action::Read]);
    guard.at(0, seen(Whose::Free, orders), &[take(orders)]);
    guard.at(10, Input::Written, &[Action::Read]);
    guard.at(11, seen(Whose::Others, orders), &[]);
}

#[test]
fn a_renewal_that_succeeds_counts_from_when_it_was_sent() {
    let orders = renewing(OnApiLoss::Stop);
    let mut guard = holding(orders);
    guard.at(1, Input::Tick, &[]).at(2, Input::Tick, &[renew(orders)]);
    guard.at(3, Input::Written, &[]);
    assert_eq!(guard.deadline(ALL), Some(s(12)));
    guard.at(4, Input::Tick, &[renew(orders)]);
}

#[test]
fn without_a_success_for_the_promised_time_everything_is_killed() {
    let orders = renewing(OnApiLoss::Stop);
    let mut guard = holding(orders);
    for second in [2, 4, 6, 8] {
        guard
            .at(second, Input::Tick, &[renew(orders)])
            .at(second + 1, Input::Away, &[]);
    }
    assert_eq!(guard.wake_at(ALL), Some(s(10)));
    guard.at(10, Input::Tick, &[Action::KillAll]).at(11, Input::Tick, &[]);
    let mut late = holding(orders);
    late.at(9, Input::Tick, &[renew(orders)]);
    late.at(10, Input::Written, &[Action::KillAll]);
}

#[test]
fn told_to_continue_it_outlives_the_api() {
    let orders = renewing(OnApiLoss::Continue);
    let mut guard = holding(orders);
    for second in [2, 4, 100, 3000] {
        guard
            .at(second, Input::Answered, &[renew(orders)])
            .at(second + 1, Input::Away, &[]);
    }
    let mut silent = holding(Orders::default());
    silent.at(30, Input::Tick, &[Action::Read]).at(31, Input::Away, &[]);
    silent.at(60, Input::Tick, &[Action::Read]);
}

#[test]
fn a_conflict_is_read_again_and_only_another_holder_kills() {
    let orders = renewing(OnApiLoss::Stop);
    let annotated = |guard: &mut Guard| {
        guard
            .at(2, Input::Tick, &[renew(orders)])
            .at(2, Input::Conflict, &[Action::Read]);
    };
    let mut guard = holding(orders);
    annotated(&mut guard);
    guard.at(2, seen(Whose::Mine, orders), &[renew(orders)]);
    let mut remade = holding(orders);
    annotated(&mut remade);
    remade.at(
        2,
        seen(Whose::Free, orders),
        &[Action::Write(Change::Take {
            known: 5,
            promise: orders.promise(),
        })],
    );
    remade.at(3, Input::Written, &[]);
    assert_eq!((remade.tenure, remade.epoch), (Tenure::Holding, 6));
    let mut sealed = holding(orders);
    annotated(&mut sealed);
    sealed.at(2, seen(Whose::Others, orders), &[Action::KillAll]);
    let mut without_renewals = holding(Orders::default());
    without_renewals.at(30, Input::Tick, &[Action::Read]);
    without_renewals.at(30, seen(Whose::Others, Orders::default()), &[Action::KillAll]);
}

// an older copy of etcd: there the Lease is still that of a container before this one
#[test]
fn a_guard_that_waits_takes_over_from_an_earlier_container_and_one_that_has_won_yields_to_any_other() {
    let orders = Orders::default();
    let mut waiting = Guard::new(s(0));
    waiting.at(0, Input::Tick, &[Action::Read]);
    waiting.at(0, seen(Whose::OtherStart, orders), &[take(orders)]);
    let mut won = holding(orders);
    won.at(30, Input::Tick, &[Action::Read]);
    won.at(30, seen(Whose::OtherStart, orders), &[Action::KillAll]);
    let renewing = renewing(OnApiLoss::Continue);
    let mut stopping = holding(renewing);
    stopping
        .at(1, Input::Terminate, &[Action::Forward])
        .at(2, Input::Tick, &[renew(renewing)]);
    stopping.at(2, Input::Conflict, &[Action::Read]);
    stopping.at(2, seen(Whose::OtherStart, renewing), &[Action::KillAll]);
}

#[test]
fn new_orders_are_learned_and_a_promise_is_taken_back_by_a_write() {
    let orders = renewing(OnApiLoss::Continue);
    let mut guard = holding(Orders::default());
    guard.at(30, Input::Tick, &[Action::Read]);
    guard
        .at(30, seen(Whose::Mine, orders), &[renew(orders)])
        .at(31, Input::Written, &[]);
    guard
        .at(32, Input::Tick, &[renew(orders)])
        .at(32, Input::Conflict, &[Action::Read]);
    guard.at(32, seen(Whose::Mine, Orders::default()), &[renew(Orders::default())]);
    guard.at(33, Input::Written, &[]).at(40, Input::Tick, &[]);
    guard.at(62, Input::Tick, &[Action::Read]);
}

#[test]
fn a_longer_time_counts_once_it_is_written_and_a_shorter_one_from_its_first_attempt() {
    let slow = renewing(OnApiLoss::Stop);
    let fast = Orders {
        renewal: Some(Renewal {
            every: s(1),
            stop_after: s(5),
            takeover_after: s(8),
        }),
        ..slow
    };
    for (from, to) in [(slow, fast), (fast, slow)] {
        let mut guard = holding(from);
        guard
            .at(2, Input::Tick, &[renew(from)])
            .at(2, Input::Conflict, &[Action::Read]);
        guard.at(2, seen(Whose::Mine, to), &[renew(to)]);
        assert_eq!(
            guard.deadline(ALL),
            Some(s(5)),
            "the shorter one of both, from the last success"
        );
        guard.at(2, Input::Written, &[]);
        let stop = to.renewal.expect("renewing").stop_after;
        assert_eq!(guard.deadline(ALL), Some(s(2) + stop));
    }
}

#[test]
fn a_hung_engine_is_killed_and_started_again_and_the_lease_kept() {
    let orders = renewing(OnApiLoss::Stop);
    let mut guard = holding(orders);
    guard.at(1, Input::Silent, &[]).at(1, Input::Silent, &[]);
    guard
        .at(1, Input::Answered, &[])
        .at(1, Input::Silent, &[])
        .at(1, Input::Silent, &[]);
    guard.at(1, Input::Silent, &[Action::KillEngine]);
    guard.at(2, Input::Exited, &[Action::Start, renew(orders)]);
    guard.at(2, Input::Silent, &[]).at(2, Input::Silent, &[]);
    guard.at(2, Input::Silent, &[]).at(2, Input::Silent, &[]);
}

#[test]
fn an_engine_that_cannot_be_killed_or_never_answers_is_not_renewed_for() {
    let orders = renewing(OnApiLoss::Continue);
    let mut stuck = holding(orders);
    for _ in 0..2 {
        stuck.at(1, Input::Silent, &[]);
    }
    stuck.at(1, Input::Silent, &[Action::KillEngine]);
    stuck.at(2, Input::Tick, &[renew(orders)]).at(2, Input::Written, &[]);
    stuck.at(11, Input::Tick, &[Action::Read]);
    stuck.at(11, seen(Whose::Mine, orders), &[]).at(12, Input::Tick, &[]);
    stuck.at(13, Input::Tick, &[Action::Read]);
    let mut slow = holding(orders);
    slow.at(3599, Input::Tick, &[renew(orders)])
        .at(3599, Input::Written, &[]);
    slow.at(3601, Input::Tick, &[Action::Read]);
}

#[test]
fn an_engine_that_ends_by_itself_is_started_again_with_growing_pauses() {
    let mut guard = holding(Orders::default());
    let mut now = 0;
    guard.at(now, Input::Exited, &[Action::Start]);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        guard.at(now, Input::Exited, &[]);
        now += pause - 1;
        let start = |actions: &[Action]| actions.contains(&Action::Start);
        assert!(!start(&guard.step(s(now), Input::Tick, ALL)), "{pause}");
        now += 1;
        assert!(start(&guard.step(s(now), Input::Tick, ALL)), "{pause}");
    }
    guard.step(s(now), Input::Answered, ALL);
    guard.step(s(now + 60), Input::Answered, ALL);
    assert_eq!(guard.ends, 0, "well again");
}

#[test]
fn an_orderly_stop_is_acknowledged_after_the_engine_has_ended() {
    let orders = renewing(OnApiLoss::Stop);
    let mut guard = holding(orders);
    guard
        .at(1, Input::Terminate, &[Action::Forward])
        .at(1, Input::Terminate, &[]);
    guard.at(2, Input::Tick, &[renew(orders)]).at(3, Input::Written, &[]);
    guard
        .at(3, Input::Silent, &[])
        .at(3, Input::Silent, &[])
        .at(3, Input::Silent, &[]);
    guard.at(3, Input::Exited, &[Action::Sync, Action::Write(Change::Stopped)]);
    guard.at(3, Input::Conflict, &[Action::Read]);
    guard.at(4, seen(Whose::Mine, orders), &[Action::Write(Change::Stopped)]);
    guard.at(4, Input::Written, &[Action::Exit]);
}

#[test]
fn nothing_keeps_a_guard_from_ending() {
    let mut without_api = holding(Orders::default());
    without_api.at(1, Input::Terminate, &[Action::Forward]);
    without_api.at(2, Input::Exited, &[Action::Sync, Action::Write(Change::Stopped)]);
    without_api.at(3, Input::Away, &[]).at(4, Input::Tick, &[Action::Exit]);
    let mut lost = holding(Orders::default());
    lost.at(1, Input::Terminate, &[Action::Forward]);
    lost.at(2, Input::Exited, &[Action::Sync, Action::Write(Change::Stopped)]);
    lost.at(2, Input::Conflict, &[Action::Read]);
    lost.at(2, seen(Whose::Others, Orders::default()), &[Action::Exit]);
    let mut waiting = Guard::new(s(0));
    waiting
        .at(0, Input::Tick, &[Action::Read])
        .at(0, Input::Terminate, &[Action::Exit]);
    let mut between_two_starts = holding(Orders::default());
    between_two_starts
        .at(1, Input::Exited, &[Action::Start])
        .at(1, Input::Exited, &[]);
    between_two_starts.at(1, Input::Terminate, &[Action::Sync, Action::Write(Change::Stopped)]);
}

#[test]
fn a_stopping_guard_that_renews_still_obeys() {
    let orders = renewing(OnApiLoss::Stop);
    let mut sealed = holding(orders);
    sealed
        .at(1, Input::Terminate, &[Action::Forward])
        .at(2, Input::Tick, &[renew(orders)]);
    sealed.at(2, Input::Conflict, &[Action::Read]);
    sealed.at(2, seen(Whose::Others, orders), &[Action::KillAll]);
    let mut cut_off = holding(orders);
    cut_off.at(1, Input::Terminate, &[Action::Forward]);
    cut_off.at(10, Input::Tick, &[Action::KillAll]);
}
