//! Rights granted against rights used, over everything that the tests before this one did.

use e2e::{Result, error::ensure, harness::Stage, rights::Rights};

pub fn every_right_is_used_and_none_is_missing(stage: &Stage) -> Result<()> {
    let granted = Rights::granted(stage.lab)?;
    let (used, refused) = Rights::used(&stage.lab.bed().audit_log()?);
    ensure(!granted.is_empty() && !used.is_empty(), || {
        "there is nothing to compare".to_owned()
    })?;
    let (unused, missing) = (granted.without(&used), used.without(&granted));
    stage.note(&format!("{} rights granted, {} used", granted.len(), used.len()));
    stage.note(&format!("granted and never used: {unused}"));
    stage.note(&format!("used and not granted by its own roles: {missing}"));
    // what it has a right to is refused for a moment while helm takes the roles away or brings them back
    let refused = refused.without(&granted);
    stage.note(&format!("asked for and refused: {refused}"));
    ensure(unused.is_empty() && missing.is_empty() && refused.is_empty(), || {
        format!("rights granted are not rights used: unused {unused}, missing {missing}, refused {refused}")
    })
}
