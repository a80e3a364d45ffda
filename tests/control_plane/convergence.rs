//! From any world to rest.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::server::play;
use crate::settle::Fair;
use crate::story::{Story, at_once};
use crate::wire::Fault;

/// All that the operator may do to a volume, but for one: a pin is refused in `evidence`.
const ACTS: [&str; 7] = [
    "DeleteAttachment",
    "Evict",
    "Lose",
    "OpenGate",
    "Record",
    "Seal",
    "ShrinkVolumesInUse",
];

#[test]
fn every_story_comes_to_rest_as_it_should_and_then_nothing_is_written_any_more() {
    let acts = Mutex::new(BTreeSet::new());
    let acts = &acts;
    play(at_once(Story::all().into_iter().map(|story| async move {
        let end = story.play(1, Fault::None, &mut Fair).await;
        let about = format!("{} (seed 1)", story.name);
        acts.lock().expect("no panic inside").extend(end.acts.clone());
        println!(
            "{about}: {} calls, {} writes, {:?}, on {:?}, by {:?}",
            end.calls, end.writes, end.ready, end.node, end.evidence
        );
        end.assert_good(&about, story.ends_ready);
    })));
    let acts = acts.lock().expect("no panic inside");
    for act in ACTS {
        assert!(acts.contains(act), "no story came to {act}: {acts:?}");
    }
}
