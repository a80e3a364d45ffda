//! The operator dies right after its k-th write, for every k: the end is the same as without.

use crate::server::play;
use crate::settle::Fair;
use crate::story::{Story, at_once};
use crate::wire::Fault;

#[test]
fn a_crash_after_any_write_changes_nothing_about_the_end() {
    play(async {
        // the last one: a new operator must not let the next pod go where the old engine still runs
        let cut = Story::all()
            .into_iter()
            .filter(|story| story.name == "node cut, storage revokes, ReadWriteOnce");
        for story in Story::main_ones().into_iter().chain(cut) {
            let calm = story.play(7, Fault::None, &mut Fair).await;
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
    });
}
