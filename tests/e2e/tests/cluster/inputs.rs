//! Bad input on the real cluster: each is told in the status with the field and the next step, and putting it right is enough.

use e2e::{Instance, Result, error::ensure, harness::Stage, instance::Condition, lab::ENGINE_IMAGE};

/// A mistake: the name of the instance, image and spec, and what the status must say of it.
struct Mistake {
    name: &'static str,
    image: &'static str,
    spec: &'static str,
    condition: &'static str,
    reason: &'static str,
    words: &'static [&'static str],
    /// The spec that puts it right, where that is not tried with another mistake of the same kind.
    repaired: Option<&'static str>,
}

/// A claim that never got a volume may still change its class.
const REVOKING_CLASS: &str = "storage:\n  storageClassName: revoking";

/// A storage class that exists and that nobody serves.
const NOBODY_PROVISIONS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: nobody-provisions}
provisioner: nobody.storage.test
";

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "no-class",
        image: ENGINE_IMAGE,
        spec: "storage:\n  storageClassName: nowhere",
        condition: "Ready",
        reason: "StorageClassMissing",
        words: &["nowhere", "spec.storage.storageClassName"],
        repaired: Some(REVOKING_CLASS),
    },
    Mistake {
        name: "no-provisioner",
        image: ENGINE_IMAGE,
        spec: "storage:\n  storageClassName: nobody-provisions",
        condition: "Ready",
        reason: "VolumePending",
        words: &["no-provisioner-data"],
        repaired: Some(REVOKING_CLASS),
    },
    Mistake {
        name: "no-image",
        image: "localhost/nobody/has-this:1",
        spec: "",
        condition: "Ready",
        reason: "ImagePullFailed",
        words: &["localhost/nobody/has-this:1", "spec.image"],
        repaired: Some(""),
    },
    Mistake {
        name: "no-node",
        image: ENGINE_IMAGE,
        spec: "nodeSelector:\n  disk: diamond",
        condition: "Ready",
        reason: "Unschedulable",
        words: &["nodeSelector"],
        repaired: Some(""),
    },
    Mistake {
        name: "no-balancer",
        image: ENGINE_IMAGE,
        spec: "service:\n  loadBalancerClass: example.com/nobody",
        condition: "AddressAssigned",
        reason: "NoLoadBalancer",
        words: &["spec.service.loadBalancerClass"],
        repaired: None,
    },
    Mistake {
        name: "no-secret",
        image: ENGINE_IMAGE,
        spec: "saPasswordSecretRef:\n  name: nowhere",
        condition: "Ready",
        reason: "SecretMissing",
        words: &["nowhere"],
        repaired: None,
    },
    Mistake {
        name: "engine-exits",
        image: ENGINE_IMAGE,
        spec: "env:\n- name: STANDIN_TLS\n  value: sometimes",
        condition: "Ready",
        reason: "EngineExits",
        words: &["STANDIN_TLS"],
        repaired: Some(""),
    },
    Mistake {
        name: "engine-mute",
        image: ENGINE_IMAGE,
        spec: "env:\n- name: STANDIN_START_DELAY_SECONDS\n  value: \"100000\"",
        condition: "Ready",
        reason: "EngineNotAnswering",
        words: &["kubectl logs"],
        repaired: Some(""),
    },
];

pub fn each_bad_input_is_told_with_its_field_and_recovers_when_it_is_put_right(stage: &Stage) -> Result<()> {
    // the schema's part: it never gets into the cluster
    let refused = stage
        .instance("no-eula")
        .manifest(ENGINE_IMAGE, "")
        .replace("acceptEula: true", "acceptEula: false");
    let answer = stage.lab.bed().kubectl_with_input(&["apply", "--filename=-"], &refused);
    let words = answer.err().map(|error| error.to_string()).unwrap_or_default();
    ensure(words.contains("acceptEula"), || {
        format!("a resource without the licence was not refused by its field: {words}")
    })?;

    stage.lab.bed().apply(NOBODY_PROVISIONS)?;
    // all at once: they do not disturb each other, and waiting for each alone would take minutes
    let made: Vec<(&Mistake, Instance)> = MISTAKES
        .iter()
        .map(|mistake| (mistake, stage.instance(mistake.name)))
        .collect();
    for (mistake, instance) in &made {
        instance.apply_with_image(mistake.image, mistake.spec)?;
    }
    for (mistake, instance) in &made {
        let fits = |seen: &Condition| {
            seen.status != "True"
                && seen.reason == mistake.reason
                && mistake.words.iter().all(|word| seen.message.contains(word))
        };
        let seen = instance.await_condition(mistake.condition, 120, fits)?;
        stage.note(&format!(
            "{}: {}: {}",
            mistake.name,
            seen.reason,
            seen.message.lines().next().unwrap_or_default()
        ));
    }
    for (mistake, instance) in &made {
        if let Some(spec) = mistake.repaired {
            instance.apply(spec)?;
        }
    }
    for (mistake, instance) in &made {
        if mistake.repaired.is_some() {
            instance.await_ready(150)?;
        }
    }
    Ok(())
}
