//! Positive controls: setups that are known to be unsafe. If the judges find nothing here, they find nothing anywhere.

use std::collections::HashSet;

use e2e::{Result, error::ensure, harness::Stage, until, volume, wait::Seen};
use jiff::Timestamp;

use crate::survival::Watched;

/// Storage that reports a detach and revokes nothing, declared as revoking; its node is paused and wakes up.
pub fn storage_that_lies_is_caught_by_the_oracle(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    let watched = Watched::create(stage, "lied-to", "")?;
    lab.bed().storage(&["mode", watched.volume(), "lie"])?;
    let (pod, node) = (watched.instance.pod_name()?, watched.instance.node()?);
    let fault = Timestamp::now();
    lab.bed().node(&node)?.pause()?;
    watched.instance.await_ready_without(&pod, 180)?;
    watched.outage(fault, 60)?;
    lab.bed().node(&node)?.resume()?;
    let found = until(90, "the woken node writes to the volume it has lost", || {
        let found = volume::findings(lab, watched.volume())?;
        Ok(if found.is_clean() {
            Seen::NotYet(format!("{} writes, all in order", found.accepted))
        } else {
            Seen::There(found)
        })
    })?;
    stage.note(&format!(
        "caught: {} late writes, {} taking turns",
        found.late.len(),
        found.interleaved.len()
    ));
    ensure(!found.late.is_empty(), || {
        "the late writes were not recognised as late".to_owned()
    })
}

/// A plain Deployment on a plain `ReadWriteOnce` claim, as in the vendor's guide, whose writer takes its time to stop.
const PLAIN: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: plain}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: plain}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: plain}}
  template:
    metadata: {labels: {app: plain}}
    spec:
      terminationGracePeriodSeconds: 20
      # elsewhere the volume would have to be detached first, which plain Kubernetes waits for
      nodeSelector: {kubernetes.io/hostname: n1}
      automountServiceAccountToken: false
      volumes: [{name: data, persistentVolumeClaim: {claimName: plain}}]
      containers:
      - name: writer
        image: localhost/busybox:1
        command: [sh, -c, 'trap "" TERM; while true; do echo $HOSTNAME >>/data/writers; sleep 0.02; done']
        volumeMounts: [{name: data, mountPath: /data}]
"#;

pub fn plain_read_write_once_and_a_forced_delete_make_two_writers(stage: &Stage) -> Result<()> {
    let lab = stage.lab;
    let namespace = format!("--namespace={}", stage.namespace);
    lab.bed()
        .kubectl_with_input(&["apply", &namespace, "--filename=-"], PLAIN)?;
    lab.kubectl(&["rollout", "status", "deployment/plain", &namespace, "--timeout=90s"])?;
    let pod = || -> Result<String> {
        let pods = lab.list("pods", &stage.namespace, "app=plain")?;
        Ok(pods
            .first()
            .and_then(|pod| pod["metadata"]["name"].as_str())
            .unwrap_or_default()
            .to_owned())
    };
    let old = pod()?;
    // the object goes at once; what it stood for does not
    lab.kubectl(&["delete", "pod", &old, &namespace, "--grace-period=0", "--force"])?;
    let turns = until(60, "two pods write in turns", || {
        let new = pod()?;
        if new.is_empty() || new == old {
            return Ok(Seen::NotYet("no other pod".to_owned()));
        }
        let writers = lab.kubectl(&["exec", &new, &namespace, "--", "cat", "/data/writers"])?;
        let turns = turns_after_the_end(writers.lines());
        Ok(if turns > 0 {
            Seen::There(turns)
        } else {
            Seen::NotYet(format!("{} lines by one writer at a time", writers.lines().count()))
        })
    })?;
    stage.note(&format!(
        "caught: {turns} lines of a writer that another one had followed already"
    ));
    Ok(())
}

/// How many lines are by a writer after another one had taken over from it.
fn turns_after_the_end<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let (mut past, mut current, mut late) = (HashSet::new(), "", 0);
    for line in lines {
        if past.contains(line) {
            late += 1;
        }
        if line != current {
            past.insert(current);
            current = line;
        }
    }
    late
}
