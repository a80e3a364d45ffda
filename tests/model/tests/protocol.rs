//! The protocol in all scenarios, and each rule taken away. See `model::scenarios` for what is modelled.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::checker::{Outcome, explore};
use model::scenario::Scenario;
use model::scenarios as all;
use model::system::{Model, Step};
use model::world::World;
use serde_json::json;
use sqledge_operator::rules::{Rule, Rules};

/// More states than any scenario has.
const BOUND: usize = 2_000_000;

/// Which scenario shows what a rule is for.
const NEEDED: &[(Rule, Scenario)] = &[
    (Rule::WinFirst, all::LEASE),
    (Rule::TakeOnlyOnes, all::LEASE),
    (Rule::StopInTime, all::LEASE),
    (Rule::CountFromSending, all::SLOW),
    (Rule::PromiseFirst, all::ORDERS),
    (Rule::ObeyTheLease, all::STRAGGLER),
    (Rule::ReadAgain, all::NOTES),
    (Rule::RenewForTheLiving, all::HANGS),
    (Rule::AcknowledgeAfterTheEnd, all::PROVIDED),
    (Rule::ChangesCount, all::LEASE),
    (Rule::WaitForExpiry, all::LEASE),
    (Rule::SealFirst, all::LEASE),
    (Rule::LoginCounts, all::NODE),
    (Rule::RenewalCounts, all::ALWAYS),
    (Rule::UnnamedGoes, all::HANDS),
    (Rule::NoRival, all::FOREIGN),
    (Rule::RenewedSince, all::SHARED),
    (Rule::LeaseIsOptIn, all::HELD),
    (Rule::PromisedToStop, all::LENIENT),
    (Rule::OldIsDetached, all::MANY),
    (Rule::SealNamesTheHolder, all::UNSEALED),
    (Rule::AliveReleasesItself, all::LEADERS),
    (Rule::StillLost, all::WORD),
    (Rule::NoUseBeside, all::UNSEALED),
    (Rule::ClassIsProof, all::HELD),
    (Rule::GoneIsProvided, all::NO_OBJECT),
    (Rule::WordNamesThePod, all::WORD),
    (Rule::WordAgainstLife, all::WORD),
    (Rule::UnseenIsAnywhere, all::FRESH),
    (Rule::Brake, all::BLIND),
    (Rule::PinIsExclusive, all::SHARED),
    (Rule::PinWhileAttached, all::PLAIN),
    (Rule::PinUnsealed, all::OPERATORS),
    (Rule::PinIsKept, all::NO_OBJECT),
    (Rule::PinLetsGo, all::FULL),
    (Rule::OneAtATime, all::MANY),
    (Rule::RecordBeforeGate, all::FRESH),
    (Rule::NameBeforeGate, all::NODE),
    (Rule::AvoidTheLost, all::PLAIN),
];

/// Rules that nothing breaks without, in the scenario nearest to them, and why they stay. Where another rule stands behind, both taken away must
/// break something.
const EXPLAINED: &[(Rule, Scenario, Option<Rule>, &str)] = &[
    (
        Rule::NothingAttached,
        all::FOREIGN,
        Some(Rule::NoUseBeside),
        "a node that has the volume mounted also lists it",
    ),
    (
        Rule::NotInUse,
        all::SHARED,
        Some(Rule::NoUseBeside),
        "asked once more of all nodes when the gate opens",
    ),
    (
        Rule::ReleasedIsDetached,
        all::MANY,
        None,
        "a kubelet that has unmounted cannot write; the detach is awaited because the next kubelet would run into a Multi-Attach back-off",
    ),
    (
        Rule::StoppedIsDetached,
        all::STOPS,
        None,
        "an engine that has ended cannot write; the detach is awaited because the next kubelet would run into a Multi-Attach back-off",
    ),
    (
        Rule::StatusIsDetached,
        all::NODE,
        None,
        "the attachment is the proof; until the status follows, the attach-detach controller refuses the next node for a while",
    ),
    (
        Rule::HeardIsBack,
        all::GIVEN_UP,
        None,
        "the storage takes the volume from a node that is back as well; kept because that node gives it back by itself, without an error for its engine",
    ),
    (
        Rule::GivenUpIsUnheard,
        all::GIVEN_UP,
        None,
        "the storage takes the volume from a living node as well; kept because its kubelet ends what hangs there, and the database may stay",
    ),
    (
        Rule::SettledSince,
        all::NODES,
        None,
        "what was taken from a lost node was taken with a proof about whoever had it there; kept for one who comes by it since",
    ),
    (
        Rule::LostIsDetached,
        all::NODES,
        None,
        "nothing attaches the volume to a node that its pod was kept off; kept for somebody who does",
    ),
    (
        Rule::LostIsUnused,
        all::NODES,
        None,
        "a list that stays as it was is asked for once more when the gate opens; kept for one that a kubelet has written since",
    ),
    (
        Rule::ThirdNodes,
        all::HANDS,
        None,
        "a third node has the volume only where a gate was opened by hand, and a guard starts nothing there; kept for instances without one",
    ),
    (
        Rule::PinToTheLiving,
        all::PLAIN,
        None,
        "a pin to a silent node is refused at the next look; kept because that costs a pod",
    ),
    (
        Rule::PinToSchedulable,
        all::FULL,
        None,
        "a pin to a cordoned node is refused after five seconds anyway; kept because a drain need not wait for them",
    ),
    (
        Rule::PinOnce,
        all::FULL,
        None,
        "the volume is detached from a node that no pod is bound to, which ends the pinning; kept because that may take long",
    ),
];

/// What is no clause of a decision and yet relied on: the model must be able to say no without it.
const CONTROLS: &[(&str, Scenario)] = &[
    ("a detach of a revoking driver revokes", all::LYING),
    ("a machine does not sleep through its promise", all::ASLEEP),
    ("a guard stops before the operator takes over", all::TIGHT),
    (
        "a write carries the uid and the resourceVersion that it was judged on",
        all::CARELESS,
    ),
    (
        "a node has settled only when its kubelet knows that the volume was taken off its list",
        all::HASTY,
    ),
];

type Found = Outcome<World, Step>;

/// Works through a list on both cores.
fn each<T: Sync, R: Send>(list: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((number, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, list.get(n)?)))
                {
                    let result = work(item);
                    results.lock().expect("no panic").insert(number, result);
                }
            });
        }
    });
    results.into_inner().expect("no panic").into_values().collect()
}

fn run(scenario: Scenario, rules: Rules) -> Found {
    explore(&Model::new(scenario, rules), BOUND)
}

fn story(found: &Found) -> String {
    let violation = found.violation.as_ref().expect("one");
    let steps: Vec<String> = violation.steps.iter().map(|step| format!("  {step:?}")).collect();
    format!("{}:\n{}", violation.property, steps.join("\n"))
}

#[test]
fn production_stands_every_scenario() {
    let found = each(all::ALL, |scenario| run(*scenario, Rules::all()));
    for (scenario, found) in all::ALL.iter().zip(found) {
        assert!(!found.cut, "{}: more than {BOUND} states", scenario.name);
        assert!(found.violation.is_none(), "{}: {}", scenario.name, story(&found));
        assert!(found.states > 1, "{}: nothing happens", scenario.name);
    }
}

#[test]
fn every_rule_is_needed_or_explained_and_so_is_what_is_relied_on() {
    let mut named: Vec<Rule> = NEEDED.iter().map(|(rule, _)| *rule).collect();
    named.extend(EXPLAINED.iter().map(|(rule, ..)| *rule));
    named.sort_unstable();
    assert_eq!(named, Rule::ALL, "each rule once");
    let cases: Vec<(Rule, Scenario, Option<&str>)> = NEEDED
        .iter()
        .map(|(rule, scenario)| (*rule, *scenario, None))
        .chain(
            EXPLAINED
                .iter()
                .map(|(rule, scenario, _, why)| (*rule, *scenario, Some(*why))),
        )
        .collect();
    let found = each(&cases, |(rule, scenario, _)| {
        run(*scenario, Rules::all().without(*rule))
    });
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for ((rule, scenario, why), found) in cases.iter().zip(&found) {
        let (rule, scenario) = (rule.name(), scenario.name);
        match (why, &found.violation) {
            _ if found.cut => wrong.push(format!("without {rule} \"{scenario}\" has more than {BOUND} states")),
            (None, None) => wrong.push(format!("nothing breaks without {rule} in \"{scenario}\"")),
            (Some(_), Some(_)) => wrong.push(format!("{rule} is needed after all; {}", story(found))),
            (None, Some(_)) | (Some(_), None) => {}
        }
        rows.push(json!({
            "rule": rule,
            "scenario": scenario,
            "states": found.states,
            "counterexample": found.violation.as_ref().map(|violation| violation.steps.len()),
            "property": found.violation.as_ref().map(|violation| violation.property),
            "explained": why,
        }));
    }
    let controls = each(CONTROLS, |(_, scenario)| run(*scenario, Rules::all()));
    for ((what, scenario), found) in CONTROLS.iter().zip(&controls) {
        let violation = found.violation.as_ref();
        let property = violation.map(|violation| violation.property);
        if property != Some("never two writers") {
            wrong.push(format!("\"{}\" does not need that {what}", scenario.name));
        }
        rows.push(json!({
            "rule": what,
            "scenario": scenario.name,
            "states": found.states,
            "counterexample": violation.map(|violation| violation.steps.len()),
            "property": property,
            "explained": null,
        }));
    }
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&target).expect("a folder for results");
    let text = serde_json::to_string_pretty(&rows).expect("plain data");
    std::fs::write(target.join("model.json"), text + "\n").expect("the results are written");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_that_stand_behind_each_other_are_not_both_spare() {
    let pairs: Vec<_> = EXPLAINED
        .iter()
        .filter_map(|(rule, scenario, behind, _)| Some((*rule, (*behind)?, *scenario)))
        .collect();
    let found = each(&pairs, |(rule, behind, scenario)| {
        run(*scenario, Rules::all().without(*rule).without(*behind))
    });
    for ((rule, behind, scenario), found) in pairs.iter().zip(found) {
        let both = format!("{} and {} in \"{}\"", rule.name(), behind.name(), scenario.name);
        assert!(found.violation.is_some(), "nothing breaks without {both}");
    }
}

/// "Nothing breaks without it" is looked for in one scenario above, and in all of them here.
#[test]
#[ignore = "minutes: make test-long"]
fn long_nothing_breaks_without_an_explained_rule_in_any_scenario() {
    let cases: Vec<(Rule, Scenario)> = EXPLAINED
        .iter()
        .flat_map(|(rule, ..)| all::ALL.iter().map(move |scenario| (*rule, *scenario)))
        .collect();
    let found = each(&cases, |(rule, scenario)| run(*scenario, Rules::all().without(*rule)));
    let wrong: Vec<String> = cases
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.violation.is_some() || found.cut)
        .map(|((rule, scenario), found)| {
            let why = found.violation.as_ref().map_or("cut".to_owned(), |_| story(found));
            format!("without {} in \"{}\": {why}", rule.name(), scenario.name)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "a minute and gigabytes: make test-long"]
fn long_production_stands_more_faults() {
    for scenario in all::LONG {
        let found = run(*scenario, Rules::all());
        println!("{}: {} states", scenario.name, found.states);
        assert!(!found.cut, "{}: more than {BOUND} states", scenario.name);
        assert!(found.violation.is_none(), "{}: {}", scenario.name, story(&found));
    }
}
