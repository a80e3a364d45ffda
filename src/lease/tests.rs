//! The words on the Lease, there and back.

use super::*;

const ME: Me = Me {
    pod: "uid-1",
    start: "boot-7",
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn renewal() -> Renewal {
    Renewal {
        every: seconds(2),
        stop_after: seconds(10),
        takeover_after: seconds(15),
    }
}

fn record(hold: Hold) -> Record {
    Record {
        hold,
        epoch: 4,
        promise: None,
        orders: Orders::default(),
    }
}

fn taken(pod: &str, start: &str) -> Hold {
    Hold::Taken {
        pod: pod.into(),
        start: start.into(),
    }
}

fn every_hold() -> Vec<Hold> {
    let sealed = [After::Expiry, After::Stop, After::Nothing].map(|after| {
        Hold::Sealed(Some(Seal {
            pod: "uid-1".into(),
            after,
        }))
    });
    let others = [
        Hold::Sealed(None),
        Hold::Named("uid-1".into()),
        taken("uid-1", "boot-7"),
        Hold::Stopped("uid-1".into()),
        Hold::Foreign("a/b/c".into()),
    ];
    sealed.into_iter().chain(others).collect()
}

#[test]
fn what_is_written_is_what_is_read() {
    let promises = [
        None,
        Some(Promise {
            takeover_after: seconds(15),
            stops_after: None,
        }),
        Some(Promise {
            takeover_after: seconds(15),
            stops_after: Some(seconds(10)),
        }),
    ];
    for hold in every_hold() {
        for promise in promises {
            for renewal in [None, Some(renewal())] {
                for on_api_loss in [OnApiLoss::Stop, OnApiLoss::Continue] {
                    let record = Record {
                        hold: hold.clone(),
                        epoch: 7,
                        promise,
                        orders: Orders { renewal, on_api_loss },
                    };
                    let mut lease = Lease::default();
                    // over something that says the opposite
                    let before = Record {
                        promise: promises[2],
                        orders: Orders {
                            renewal: Some(self::renewal()),
                            on_api_loss,
                        },
                        ..self::record(Hold::Sealed(None))
                    };
                    before.write(&mut lease, at(0));
                    record.write(&mut lease, at(1));
                    assert_eq!(Record::of(&lease), record);
                }
            }
        }
    }
}

#[test]
fn what_others_wrote_on_the_object_stays() {
    let mut lease = Lease::default();
    lease.metadata.resource_version = Some("7".into());
    lease.metadata.annotations = Some([("example.com/note".to_owned(), "x".to_owned())].into());
    lease.spec.get_or_insert_default().strategy = Some("OldestEmulationVersion".into());
    record(Hold::Named("uid-1".into())).write(&mut lease, at(0));
    assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(annotation(&lease, "example.com/note"), Some("x"));
    assert!(lease.spec.expect("a spec").strategy.is_some());
}

#[test]
fn every_renewal_changes_the_object() {
    let mut lease = Lease::default();
    let held = record(taken("uid-1", "boot-7"));
    held.write(&mut lease, at(0));
    let first = lease.clone();
    held.renewed(None).write(&mut lease, at(2));
    assert_ne!(
        lease, first,
        "the API server keeps the resourceVersion of an object that is put unchanged"
    );
    let acquired = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone());
    assert_eq!(acquired(&lease), acquired(&first), "a renewal is no acquisition");
}

#[test]
fn words_that_nobody_of_us_wrote_give_nobody_a_right() {
    for text in [
        "",
        "for/",
        "for",
        "stopped/",
        "sealed/",
        "sealed/expired/",
        "sealed/who/uid-1",
        "x",
        "/x",
        "uid-1/",
        "a/b/c",
    ] {
        let hold = Hold::parse(text);
        assert_eq!(hold, Hold::Foreign(text.into()), "{text}");
        assert_eq!(record(hold).is_whose(ME), Whose::Others, "{text}");
    }
    assert_eq!(Record::of(&Lease::default()).hold, Hold::Sealed(None));
}

#[test]
fn a_guard_may_take_what_is_for_its_pod_and_nothing_else() {
    let whose = |hold: Hold| record(hold).is_whose(ME);
    assert_eq!(whose(taken("uid-1", "boot-7")), Whose::Mine);
    assert_eq!(whose(taken("uid-1", "boot-6")), Whose::OtherStart);
    for free in [Hold::Named("uid-1".into()), Hold::Stopped("uid-1".into())] {
        assert_eq!(whose(free.clone()), Whose::Free, "{free}");
    }
    for others in [
        Hold::Named("uid-2".into()),
        taken("uid-2", "boot-7"),
        Hold::Stopped("uid-2".into()),
        Hold::Sealed(None),
        Hold::Sealed(Some(Seal {
            pod: "uid-1".into(),
            after: After::Stop,
        })),
    ] {
        assert_eq!(whose(others.clone()), Whose::Others, "{others}");
    }
}

#[test]
fn takes_seals_and_names_count_up_and_end_the_promise() {
    let promise = renewal_orders().promise();
    let held = Record {
        promise,
        orders: renewal_orders(),
        ..record(taken("uid-1", "boot-7"))
    };
    let seal = Seal {
        pod: "uid-1".into(),
        after: After::Expiry,
    };
    let sealed = held.sealed(seal.clone());
    assert_eq!((sealed.epoch, sealed.promise), (5, None));
    assert_eq!(sealed.hold, Hold::Sealed(Some(seal)));
    let named = sealed.named("uid-2");
    assert_eq!((named.epoch, named.pod(), named.promise), (6, Some("uid-2"), None));
    let took = named.taken(
        Me {
            pod: "uid-2",
            start: "boot-1",
        },
        0,
        promise,
    );
    assert_eq!((took.epoch, took.promise), (7, promise));
    assert_eq!(took.orders, renewal_orders(), "orders outlive their addressee");
    let stopped = took.stopped(Me {
        pod: "uid-2",
        start: "boot-1",
    });
    assert_eq!((stopped.epoch, stopped.promise), (7, None));
}

#[test]
fn a_lease_made_anew_is_for_the_pod_that_was_let_in_and_never_falls_behind() {
    let anew = Record::anew(Some("uid-1"), 9, Orders::default());
    assert_eq!((anew.hold.clone(), anew.epoch), (Hold::Named("uid-1".into()), 10));
    assert_eq!(anew.taken(ME, 20, None).epoch, 21, "the guard knows better");
    assert_eq!(Record::anew(None, 0, Orders::default()).hold, Hold::Sealed(None));
}

fn renewal_orders() -> Orders {
    Orders {
        renewal: Some(renewal()),
        on_api_loss: OnApiLoss::Stop,
    }
}

#[test]
fn only_who_stops_by_itself_promises_to() {
    let promise = renewal_orders().promise().expect("a promise");
    assert_eq!(promise.stops_after, Some(seconds(10)));
    let lenient = Orders {
        on_api_loss: OnApiLoss::Continue,
        ..renewal_orders()
    };
    assert_eq!(lenient.promise().expect("a promise").stops_after, None);
    assert_eq!(Orders::default().promise(), None);
}

#[test]
fn unsafe_orders_are_none() {
    let parse = Renewal::parse;
    assert_eq!(parse("2/10/15"), Some(renewal()));
    assert!(parse("1/5/8").is_some());
    for text in [
        "",
        "2/10",
        "2/10/15/1",
        "0/10/15",
        "4/10/15",
        "2/10/12",
        "2/15/10",
        "a/b/c",
        "-1/10/15",
        "2/10/99999999999999999999",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}
