//! How a Lease begins where there is none.

use std::time::Duration;

use super::*;
use crate::scene::NodeFacts;

/// The claim remembers that there was one.
fn without_a_lease() -> World {
    let mut world = usual();
    world.guard.lease = None;
    let claim = world.claim.as_mut().expect("a claim");
    let annotations = claim.metadata.annotations.get_or_insert_default();
    annotations.insert(EPOCH.into(), "41".into());
    world
}

/// Hold and epoch of the Lease that is made.
fn begun(world: &World) -> (Hold, i32) {
    let plan = made(world);
    let [Step::CreateLease(lease)] = &plan.steps[..] else {
        panic!("{plan:?}");
    };
    let Record { hold, epoch, .. } = Record::of(lease);
    (hold, epoch)
}

#[test]
fn a_lease_begins_sealed_or_for_the_pod_of_record_that_is_at_the_volume() {
    use End::{Deleting, Finished};
    use Gate::{Open, Shut};
    let sealed = Hold::Sealed(None);
    let named = Hold::Named("a".into());
    for (record, pods, begins) in [
        (None, vec![], &sealed),
        (None, vec![pod("a", Open, End::None)], &sealed),
        (Some("a"), vec![], &sealed),
        (Some("a"), vec![pod("a", Open, End::None)], &named),
        (Some("a"), vec![pod("a", Shut, End::None)], &sealed),
        (Some("a"), vec![pod("a", Open, Deleting)], &sealed),
        (Some("a"), vec![pod("a", Open, Finished)], &sealed),
        (Some("b"), vec![pod("a", Open, End::None)], &sealed),
        (
            Some("a"),
            vec![pod("a", Open, End::None), pod("b", Shut, End::None)],
            &named,
        ),
    ] {
        let mut world = without_a_lease();
        world.scene.claim.holder = record.map(holder);
        world.pods = pods;
        assert_eq!(begun(&world), (begins.clone(), 42), "{record:?}, {:?}", world.pods);
    }
}

fn node(unchanged: u64) -> NodeFacts {
    NodeFacts {
        lease_unchanged: Some(Duration::from_secs(unchanged)),
        ..samples::node("n1")
    }
}

// a resource that is deleted and made again while its pod still stops: `sealed` would kill that pod's engine
#[test]
fn a_lease_begins_for_a_pod_of_record_that_is_still_stopping_on_a_live_node() {
    let sealed = Hold::Sealed(None);
    let named = Hold::Named("a".into());
    for (about, record, end, unchanged, begins) in [
        ("stopping", "a", End::Deleting, Some(3), &named),
        ("on a silent node", "a", End::Deleting, Some(15), &sealed),
        ("on a node that is gone", "a", End::Deleting, None, &sealed),
        ("not of record", "b", End::Deleting, Some(3), &sealed),
        ("ended", "a", End::Finished, Some(3), &sealed),
    ] {
        let mut world = without_a_lease();
        world.scene.claim.holder = Some(holder(record));
        let mut stopping = pod("a", Gate::Open, end);
        stopping.spec.get_or_insert_default().node_name = Some("n1".into());
        world.pods = vec![stopping];
        world.scene.nodes = unchanged
            .map(|unchanged| ("n1".to_owned(), node(unchanged)))
            .into_iter()
            .collect();
        assert_eq!(begun(&world), (begins.clone(), 42), "{about}");
    }
}
