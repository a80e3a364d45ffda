//! Every act that was judged on an object is refused by the API server when that object has changed since the last look at it: the operator
//! was paused between the look and the act, and somebody else was not.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::json;

use crate::chance::Chance;
use crate::mirror::Place;
use crate::operator::Lag;
use crate::server::play;
use crate::settle::{Fair, assert_at_rest, settle, started};
use crate::story::{Story, at_once};
use crate::wire::{Fault, Sent};
use crate::world::World;

/// Turns in which the write that is to be held must come.
const TURNS: usize = 60;

/// Somebody changes the object in a way that matters to nobody.
async fn touch(world: &World, held: &Sent) {
    let path = held.path.trim_end_matches("/status");
    let touched = json!({"metadata": {"annotations": {"somebody.example/was": "here"}}});
    world.merge(path, touched).await;
}

/// Whether an object that is there does not show the change any more. One that is gone was judged once more, as it is now.
fn has_lost_it(world: &World, held: &Sent) -> bool {
    let place = place(held);
    let state = world.lock();
    let stored = state.mirror.get(&place.plural, &place.name.expect("a name"));
    stored.is_some_and(|object| object["metadata"]["annotations"]["somebody.example/was"] != "here")
}

/// Holds the n-th act of the story back; returns what was refused, if there were so many acts.
async fn refuse(story: &Story, number: usize) -> Option<String> {
    let seed = u64::try_from(number).expect("small");
    let about = format!("{} (seed {seed}, the object of act {number} changes)", story.name);
    let mut chance = Chance::new(seed);
    let (world, mut operator) = started(&story.make, &story.setup, &mut chance).await;
    operator.wire.arm(Fault::HoldJudged(number));
    story.happen(&world).await;
    for _ in 0..TURNS {
        operator.look(&Lag::default());
        let meanwhile = async {
            operator.wire.held.notified().await;
            let held = operator.wire.holding().expect("it is held");
            touch(&world, &held).await;
            operator.wire.release.notify_one();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = operator.pass() => {}
            () = meanwhile => {}
        }
        if operator.wire.holding().is_some() {
            break;
        }
        if !world.round(&mut chance).await {
            world.heartbeat().await;
            operator.age();
        }
    }
    let held = operator.wire.holding();
    if let Some(held) = &held {
        let is_it = |sent: &&Sent| sent.method == held.method && sent.path == held.path && sent.body == held.body;
        let sent = operator.wire.sent();
        let answer = sent.iter().find(is_it).map(|sent| sent.status);
        assert_eq!(answer, Some(409), "{about}: {held:?}\n{}", world.story());
        assert!(
            !has_lost_it(&world, held),
            "{about}: the change was taken back by {held:?}\n{}",
            world.story()
        );
    }
    settle(&world, &mut operator, &mut chance, &mut Fair).await;
    assert_at_rest(&world, &mut operator, &about).await;
    world.assert_sound(&about);
    let ready = world.lock().condition("Ready").map(|(status, _)| status);
    assert_eq!(
        ready.as_deref() == Some("True"),
        story.ends_ready,
        "{about}\n{}",
        world.story()
    );
    world.end().await;
    held.map(|held| format!("{} {}", held.method, place(&held).plural))
}

fn place(sent: &Sent) -> Place {
    Place::of(&sent.path).expect("a place")
}

#[test]
fn an_act_on_an_object_that_changed_after_the_last_look_is_refused() {
    play(async {
        let stories = Story::all();
        let stories = stories.iter().filter(|story| {
            [
                "pod force-deleted",
                "node off, storage revokes",
                "node off, no fast detach",
                "deletion policy changed",
            ]
            .contains(&story.name)
        });
        let refused = Mutex::new(BTreeSet::new());
        at_once(stories.map(async |story| {
            let mut number = 1;
            while let Some(act) = refuse(story, number).await {
                refused.lock().expect("no panic inside").insert(act);
                number += 1;
            }
        }))
        .await;
        let refused = refused.into_inner().expect("no panic inside");
        let all = [
            "DELETE pods",
            "DELETE volumeattachments",
            "PATCH nodes",
            "PATCH persistentvolumeclaims",
            "PATCH pods",
            "PATCH secrets",
            "PUT leases",
        ];
        assert_eq!(refused, all.map(str::to_owned).into(), "not every act was met");
    });
}
