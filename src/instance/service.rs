//! The settings of the Service.

use std::collections::BTreeMap;

use super::{ENGINE_PORT, Invalid};
use crate::api::{ExternalTrafficPolicy, ServiceSpec, ServiceType};

/// The settings of the Service with defaults.
pub(super) struct ServiceSettings {
    pub(super) type_: ServiceType,
    pub(super) port: i32,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) load_balancer_class: Option<String>,
    pub(super) source_ranges: Vec<String>,
    pub(super) external_traffic_policy: Option<ExternalTrafficPolicy>,
}

impl ServiceSettings {
    pub(super) fn parse(spec: ServiceSpec) -> Result<Self, Invalid> {
        let ServiceSpec {
            type_,
            port,
            annotations,
            load_balancer_class,
            load_balancer_source_ranges: source_ranges,
            external_traffic_policy,
        } = spec;
        let type_ = type_.unwrap_or_default();
        let port = port.unwrap_or(ENGINE_PORT);
        if !(1..=65_535).contains(&port) {
            return Err(Invalid::new(
                "spec.service.port",
                "must be between 1 and 65535: choose a port, or remove it for 1433",
            ));
        }
        if type_ != ServiceType::LoadBalancer {
            if load_balancer_class.is_some() {
                return Err(Invalid::new(
                    "spec.service.loadBalancerClass",
                    "needs type LoadBalancer: change the type or remove the class",
                ));
            }
            if !source_ranges.is_empty() {
                return Err(Invalid::new(
                    "spec.service.loadBalancerSourceRanges",
                    "needs type LoadBalancer: change the type or remove the ranges",
                ));
            }
        }
        if type_ == ServiceType::ClusterIP && external_traffic_policy.is_some() {
            return Err(Invalid::new(
                "spec.service.externalTrafficPolicy",
                "needs type LoadBalancer or NodePort: change the type or remove the policy",
            ));
        }
        if !source_ranges.iter().all(|range| is_cidr(range)) {
            return Err(Invalid::new(
                "spec.service.loadBalancerSourceRanges",
                "needs CIDR ranges: write them such as 192.0.2.0/24",
            ));
        }
        Ok(Self {
            type_,
            port,
            annotations,
            load_balancer_class,
            source_ranges,
            external_traffic_policy,
        })
    }
}

fn is_cidr(range: &str) -> bool {
    let Some((address, bits)) = range.split_once('/') else {
        return false;
    };
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return false;
    };
    bits.parse::<u8>()
        .is_ok_and(|bits| bits <= if address.is_ipv4() { 32 } else { 128 })
}
