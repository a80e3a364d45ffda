//! Keys, certificates and kubeconfigs of one testbed. Valid for nothing else; thrown away with it.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::{
    error::{Error, Result},
    layout::{API_ADDRESS, API_SERVICE_ADDRESS, Layout, NodeId},
    process::write_whole,
};

/// The administrator.
pub const ADMIN: &str = "admin";
/// The API server's own identity towards kubelets.
pub const API_TO_KUBELET: &str = "api-to-kubelet";
/// kube-controller-manager.
pub const CONTROLLER_MANAGER: &str = "controller-manager";
/// kube-scheduler.
pub const SCHEDULER: &str = "scheduler";
/// kube-proxy on every node.
pub const PROXY: &str = "proxy";

/// Writes all of it into the layout's PKI folder, and the kubeconfigs beside.
pub fn create(layout: &Layout, nodes: &[NodeId]) -> Result<()> {
    let folder = layout.pki();
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let authority = Authority::new()?;
    write_whole(&folder.join("ca.crt"), authority.0.pem().as_bytes())?;
    write_whole(&folder.join("ca.key"), authority.0.key().serialize_pem().as_bytes())?;
    let tokens = new_key()?;
    write_whole(&folder.join("service-accounts.key"), tokens.serialize_pem().as_bytes())?;
    write_whole(&folder.join("service-accounts.pub"), tokens.public_key_pem().as_bytes())?;

    let api_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut api_hosts: Vec<String> = api_names.map(str::to_owned).to_vec();
    api_hosts.extend([
        API_ADDRESS.to_string(),
        API_SERVICE_ADDRESS.to_string(),
        "127.0.0.1".to_owned(),
    ]);
    authority.issue(&folder, "apiserver", "kube-apiserver", None, &api_hosts)?;

    let users = [
        (ADMIN, "admin", Some("system:masters")),
        (API_TO_KUBELET, "kube-apiserver-kubelet-client", None),
        (CONTROLLER_MANAGER, "system:kube-controller-manager", None),
        (SCHEDULER, "system:kube-scheduler", None),
        (PROXY, "system:kube-proxy", None),
    ];
    for (file, user, group) in users {
        authority.issue(&folder, file, user, group, &[])?;
        write_whole(&folder.join(format!("{file}.conf")), &kubeconfig(&folder, file)?)?;
    }
    for node in nodes {
        let hosts = [node.to_string(), node.address().to_string()];
        authority.issue(
            &folder,
            &hosts[0],
            &format!("system:node:{node}"),
            Some("system:nodes"),
            &hosts,
        )?;
        write_whole(&folder.join(format!("{node}.conf")), &kubeconfig(&folder, &hosts[0])?)?;
    }
    write_whole(&layout.kubeconfig(), &kubeconfig(&folder, ADMIN)?)
}

/// A kubeconfig that carries its certificates, so that it works wherever it is copied. JSON is valid YAML.
fn kubeconfig(folder: &Path, user: &str) -> Result<Vec<u8>> {
    let pem = |file: String| -> Result<String> {
        let path = folder.join(file);
        Ok(base64(&fs::read(&path).map_err(Error::file("read", path))?))
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {
            "server": format!("https://{API_ADDRESS}:6443"),
            "certificate-authority-data": pem("ca.crt".to_owned())?,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": pem(format!("{user}.crt"))?, "client-key-data": pem(format!("{user}.key"))?,
        }}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
    });
    Ok(config.to_string().into_bytes())
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Self> {
        let mut params = lasting(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, "testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        CertifiedIssuer::self_signed(params, new_key()?)
            .map(Self)
            .map_err(broken("the certificate authority"))
    }

    fn issue(&self, folder: &Path, file: &str, user: &str, group: Option<&str>, hosts: &[String]) -> Result<()> {
        let mut params = lasting(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !hosts.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into().map_err(broken(host))?),
            });
        }
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.0).map_err(broken(user))?;
        write_whole(&folder.join(format!("{file}.crt")), certificate.pem().as_bytes())?;
        write_whole(&folder.join(format!("{file}.key")), key.serialize_pem().as_bytes())
    }
}

/// A validity that begins early, because clocks step, and ends, because a testbed does.
fn lasting(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(365);
    params
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate().map_err(broken("a key"))
}

fn broken<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Error {
    Error::malformed(format!("the certificate request for {what}"))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position)) & 63;
            text.push(if position <= chunk.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_its_standard_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn every_node_gets_a_certificate_and_a_kubeconfig_with_its_own_key() {
        let cache = std::env::temp_dir().join(format!("testbed-pki-{}", std::process::id()));
        let layout = Layout::new("pki", cache.clone()).unwrap();
        create(&layout, &[NodeId(1), NodeId(2)]).unwrap();
        let read = |file: &str| fs::read_to_string(layout.pki().join(file)).unwrap();
        assert_ne!(read("n1.key"), read("n2.key"));
        assert!(read("n2.conf").contains(&base64(read("n2.key").as_bytes())));
        fs::remove_dir_all(cache).unwrap();
    }
}
