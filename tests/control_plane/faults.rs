//! One call of the operator ends badly, for every call: the end is the same as without.
//!
//! Which way it ends badly goes round with the number of the call; `SQLEDGE_EVERY_FAULT=1` tries every way at every call. A write also ends
//! badly after it was carried out.

use std::time::Duration;

use crate::server::play;
use crate::settle::Fair;
use crate::story::{Story, at_once};
use crate::wire::{Ending, Fault};

const REFUSALS: [Ending; 5] = [
    Ending::Refused(409),
    Ending::Refused(429),
    Ending::Refused(500),
    Ending::Refused(503),
    Ending::Lost,
];
const HALF_DONE: [Ending; 2] = [Ending::DoneButFailed, Ending::DoneButLost];

fn endings(call: usize, is_write: bool) -> Vec<Ending> {
    if std::env::var_os("SQLEDGE_EVERY_FAULT").is_some() {
        return REFUSALS.into_iter().chain(HALF_DONE).collect();
    }
    let mut endings = vec![REFUSALS[call % REFUSALS.len()]];
    endings.extend(is_write.then(|| HALF_DONE[call % HALF_DONE.len()]));
    endings
}

#[test]
fn a_call_that_fails_anywhere_changes_nothing_about_the_end() {
    play(async {
        for story in Story::main_ones() {
            let calm = story.play(11, Fault::None, &mut Fair).await;
            calm.assert_good(story.name, story.ends_ready);
            println!("{}: {} calls, each of them fails once", story.name, calm.calls);
            let (story, calm) = (&story, &calm);
            let faults = (1..=calm.calls).flat_map(|call| {
                let endings = endings(call, calm.is_write(call));
                endings.into_iter().map(move |ending| (call, ending))
            });
            at_once(faults.map(|(call, ending)| async move {
                let about = format!("{} (seed 11, call {call} ends with {ending:?})", story.name);
                let end = story.play(11, Fault::Call(call, ending), &mut Fair).await;
                end.assert_good(&about, story.ends_ready);
                end.assert_same(&about, calm);
            }))
            .await;
        }
    });
}

#[test]
fn a_write_that_is_never_answered_is_given_up_and_changes_nothing_about_the_end() {
    play(async {
        let mut story = Story::main_ones().remove(2);
        // long enough for every other call on a busy machine
        story.setup.call = Duration::from_secs(3);
        let calm = story.play(12, Fault::None, &mut Fair).await;
        let (story, calm) = (&story, &calm);
        at_once((3..=calm.calls).step_by(7).map(|call| async move {
            let about = format!("{} (seed 12, call {call} is never answered)", story.name);
            let end = story
                .play(12, Fault::Call(call, Ending::DoneButSilent), &mut Fair)
                .await;
            end.assert_good(&about, story.ends_ready);
            end.assert_same(&about, calm);
        }))
        .await;
    });
}
