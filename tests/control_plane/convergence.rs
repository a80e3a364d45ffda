//! From any world to rest.

use crate::server::play;
use crate::settle::Fair;
use crate::story::{Story, at_once};
use crate::wire::Fault;

#[test]
fn every_story_comes_to_rest_as_it_should_and_then_nothing_is_written_any_more() {
    play(at_once(Story::all().into_iter().map(|story| async move {
        let end = story.play(1, Fault::None, &mut Fair).await;
        let about = format!("{} (seed 1)", story.name);
        println!(
            "{about}: {} calls, {} writes, {:?}, on {:?}, by {:?}",
            end.calls, end.writes, end.ready, end.node, end.evidence
        );
        end.assert_good(&about, story.ends_ready);
    })));
}
