//! The chart, with the real helm: upgrades and an uninstall beside a running database.

use e2e::{Result, error::ensure, harness::Stage, operator, until};
use jiff::Timestamp;

use crate::survival::Watched;

pub fn an_upgrade_restarts_no_database_and_an_uninstall_leaves_it_running(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    let mut watched = Watched::create(stage, "steady", "")?;
    let (container, engine) = (watched.container()?, watched.engine()?);
    let template = || {
        watched
            .instance
            .child("deployment", "steady")
            .map(|deployment| deployment["spec"]["template"].clone())
    };
    let rendered = template()?;
    let began = Timestamp::now();

    let replicas = operator::pods(lab)?;
    operator::install_with_helm(lab, &[])?;
    ensure(operator::pods(lab)? == replicas, || {
        "an upgrade with the same values restarted the operator".to_owned()
    })?;

    // a new version of the operator is another image, and would render another init container
    lab.bed()
        .import_images(&[lab.programs().archive("operator-next.tar")])?;
    operator::install_with_helm(lab, &["--set=image.tag=next"])?;
    ensure(operator::image(lab)?.ends_with(":next"), || {
        "the new version was not installed".to_owned()
    })?;
    let led = operator::leader(lab)?;
    // a change that needs a pass by the new version, and no restart
    watched
        .instance
        .apply("service:\n  annotations:\n    example.com/version: next")?;
    until(60, &format!("{led} has served the instance"), || {
        let service = watched.instance.child("service", "steady")?;
        Ok(service["metadata"]["annotations"]["example.com/version"] == "next")
    })?;
    ensure(template()? == rendered, || {
        "a new version of the operator changed the template of a running instance".to_owned()
    })?;

    operator::uninstall_with_helm(lab)?;
    lab.kubectl(&["get", "crd", "sqledgeinstances.sqledge.io"])?;
    for (kind, name) in [
        ("sqledge", "steady"),
        ("deployment", "steady"),
        ("service", "steady"),
        ("pvc", "steady-data"),
        ("secret", "steady-sa"),
    ] {
        watched.instance.child(kind, name)?;
    }
    watched.clients.await_rows_after(Timestamp::now(), 10)?;

    operator::install_with_helm(lab, &[])?;
    watched.instance.await_ready(60)?;
    watched.check_untouched(began, &container, &engine)?;
    watched.check()
}
