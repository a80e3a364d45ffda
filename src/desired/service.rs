//! The Service: the address that stays when everything behind it moves.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::owned;
use crate::instance::{ENGINE_PORT, Instance};

/// The Service. It is never deleted and made again while its instance exists, because its address would change.
pub fn service(instance: &Instance) -> Service {
    let mut metadata = owned(instance, &instance.service_name);
    if !instance.service_annotations.is_empty() {
        metadata.annotations = Some(instance.service_annotations.clone());
    }
    let ranges = &instance.load_balancer_source_ranges;
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(instance.service_type.as_str().to_owned()),
            selector: Some(instance.selector()),
            ports: Some(vec![ServicePort {
                name: Some("sql".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: instance.port,
                target_port: Some(IntOrString::Int(ENGINE_PORT)),
                ..ServicePort::default()
            }]),
            // A kubelet that died reports nothing, and its pods count as not ready; the database on it may be well. There
            // is at most one pod that can answer, so nothing is gained by taking it out.
            publish_not_ready_addresses: Some(true),
            session_affinity: Some("None".to_owned()),
            load_balancer_class: instance.load_balancer_class.clone(),
            load_balancer_source_ranges: (!ranges.is_empty()).then(|| ranges.clone()),
            external_traffic_policy: instance
                .external_traffic_policy
                .map(|policy| policy.as_str().to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
