//! The operator dies right after its k-th write, for every k: the end is the same as without.

use std::collections::BTreeSet;

use crate::server::play;
use crate::settle::Fair;
use crate::story::{Story, at_once};
use crate::wire::Fault;

#[test]
fn a_crash_after_any_write_changes_nothing_about_the_end() {
    play(async {
        // after the second a new operator must not let the next pod go where the old engine still runs
        let others = Story::all().into_iter().filter(|story| {
            [
                "node off, no guard",
                "node cut, storage revokes, ReadWriteOnce",
                "node cut, class unknown, proof Lease",
            ]
            .contains(&story.name)
        });
        let mut acts = BTreeSet::new();
        for story in Story::main_ones().into_iter().chain(others) {
            let calm = story.play(7, Fault::None, &mut Fair).await;
            acts.extend(calm.acts.clone());
            calm.assert_good(story.name, story.ends_ready);
            println!("{}: {} writes, a crash after each of them", story.name, calm.writes);
            assert!(calm.writes > 2, "{}: nothing to crash after", story.name);
            let (story, calm) = (&story, &calm);
            at_once((1..=calm.writes).map(|k| async move {
                let about = format!("{} (seed 7, crash after write {k})", story.name);
                let end = story.play(7, Fault::CrashAfterWrite(k), &mut Fair).await;
                end.assert_good(&about, story.ends_ready);
                end.assert_same(&about, calm);
            }))
            .await;
        }
        for act in ["Record", "Seal", "Evict", "Lose", "ShrinkVolumesInUse", "OpenGate"] {
            assert!(acts.contains(act), "no crash came after {act}: {acts:?}");
        }
    });
}
