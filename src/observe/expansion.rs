//! That the API server will not let the claim grow, remembered for a while: it would refuse again at every pass.

use kube::ResourceExt as _;

use crate::context::Context;
use crate::instance::Instance;
use crate::world::World;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

/// The API server's words, if it refused not long ago to let this claim grow to this size.
pub fn refusal(context: &Context, instance: &Instance, claim: Option<&PersistentVolumeClaim>) -> Option<String> {
    context.memory.refusal(&key(instance, claim?)?, context.timing.resync)
}

/// It has just refused.
pub fn note_refusal(context: &Context, world: &mut World, words: String) {
    let key = world.claim.as_ref().and_then(|claim| key(&world.instance, claim));
    if let Some(key) = key {
        context.memory.remember_refusal(key, words.clone());
    }
    world.expansion_refused = Some(words);
}

fn key(instance: &Instance, claim: &PersistentVolumeClaim) -> Option<String> {
    let size = instance.size.as_ref()?;
    Some(format!("{}/{}/{}", instance.uid, claim.uid()?, size.0))
}
