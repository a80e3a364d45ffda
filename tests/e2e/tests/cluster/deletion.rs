//! Deletion of a resource, and what a later one of the same name finds.

use e2e::{Result, error::ensure, harness::Stage, until};

use crate::survival::Watched;

pub fn a_deleted_resource_leaves_its_data_and_a_new_one_adopts_it(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "kept", "")?;
    watched.check()?;
    let instance = watched.instance.clone();
    let claim = instance.child("pvc", "kept-data")?["metadata"]["uid"].clone();
    let (password, volume) = (instance.password()?, instance.volume()?);
    instance.delete()?;
    until(90, "Deployment, Service and pods are gone", || {
        let lab = stage.lab;
        let gone = lab.get("deployment", &stage.namespace, "kept")?.is_none()
            && lab.get("service", &stage.namespace, "kept")?.is_none();
        Ok(gone && instance.pods()?.is_empty())
    })?;
    ensure(instance.child("pvc", "kept-data")?["metadata"]["uid"] == claim, || {
        "the claim was made anew".to_owned()
    })?;
    instance.child("secret", "kept-sa")?;

    instance.create("")?;
    ensure(instance.child("pvc", "kept-data")?["metadata"]["uid"] == claim, || {
        "the claim was not adopted".to_owned()
    })?;
    ensure(instance.volume()? == volume, || "another volume is used".to_owned())?;
    ensure(instance.password()? == password, || {
        "the password was made anew".to_owned()
    })?;
    watched.clients.readdress(&instance)?;
    watched.clients.verify()?;
    Ok(())
}

pub fn with_policy_delete_the_data_goes_too(stage: &Stage) -> Result<()> {
    let mut watched = Watched::create(stage, "gone", "")?;
    watched.check()?;
    // the owner may change their mind as long as the resource is there
    watched.instance.apply("deletionPolicy: Delete")?;
    until(30, "claim and Secret belong to the resource", || {
        let owned = |kind, name| -> Result<bool> {
            Ok(watched.instance.child(kind, name)?["metadata"]["ownerReferences"]
                .as_array()
                .is_some_and(|owners| !owners.is_empty()))
        };
        Ok(owned("pvc", "gone-data")? && owned("secret", "gone-sa")?)
    })?;
    let volume = watched.volume().to_owned();
    let volumes = || stage.lab.bed().storage(&["state"]);
    ensure(volumes()?.contains(&volume), || {
        format!("the storage host does not know volume {volume} even now")
    })?;
    watched.instance.delete()?;
    until(120, "claim, Secret and the volume itself are gone", || {
        let lab = stage.lab;
        let gone = lab.get("pvc", &stage.namespace, "gone-data")?.is_none()
            && lab.get("secret", &stage.namespace, "gone-sa")?.is_none();
        Ok(gone && !volumes()?.contains(&volume))
    })
}
