//! The guard's one object: reads and writes a single Lease through the API server.
//!
//! The whole object travels both ways as it is, so that fields of later versions and other people's annotations survive,
//! and every write carries the uid and resourceVersion that were read. What went wrong is told apart only as far as the
//! rules care: a conflict, a missing Lease, or no word from the API server at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Far above any Lease.
const LARGEST_ANSWER: u64 = 1 << 20;

/// Where the kubelet puts what a pod needs to speak with the API server.
pub const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What the API server said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The Lease as it is now.
    Lease(Value),
    /// Somebody else has written it since it was read.
    Conflict,
    /// There is no such Lease.
    Missing,
    /// Nothing that says anything about the Lease.
    Away(String),
}

/// Why there was no answer about the Lease.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {}: {source}: check the pod's service account token volume", file.display())]
    Credentials { file: PathBuf, source: io::Error },
    #[error("{} holds no certificate", .0.display())]
    Authority(PathBuf),
    #[error("{0}")]
    Request(#[from] ureq::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the answer is no Lease: {0}")]
    Answer(#[from] serde_json::Error),
}

/// The way to the Lease.
#[derive(Debug)]
pub struct Api {
    url: String,
    credentials: PathBuf,
    // one connection for as long as it serves; a failure drops it, so that the next attempt begins with a fresh one
    agent: Option<(Agent, Duration)>,
}

impl Api {
    /// `server` is host and port.
    pub fn new(server: &str, credentials: &Path, namespace: &str, name: &str) -> Self {
        Self {
            url: format!("https://{server}/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"),
            credentials: credentials.to_owned(),
            agent: None,
        }
    }

    /// Reads the Lease, or writes it as it is given. All of it, name resolution included, ends within `within`.
    pub fn exchange(&mut self, write: Option<&Value>, within: Duration) -> Answer {
        self.attempt(write, within).unwrap_or_else(|error| {
            self.agent = None;
            Answer::Away(error.to_string())
        })
    }

    fn attempt(&mut self, write: Option<&Value>, within: Duration) -> Result<Answer, Error> {
        // for each request: the kubelet replaces the token long before it expires
        let token = self.read("token")?;
        let token = String::from_utf8_lossy(&token);
        let authorization = format!("Bearer {}", token.trim());
        let agent = match &self.agent {
            Some((agent, limit)) if *limit == within => agent.clone(),
            _ => {
                let agent = self.connect(within)?;
                self.agent = Some((agent.clone(), within));
                agent
            }
        };
        let mut response = match write {
            None => agent.get(&self.url).header("authorization", &authorization).call()?,
            Some(lease) => agent
                .put(&self.url)
                .header("authorization", &authorization)
                .content_type("application/json")
                .send(&serde_json::to_vec(lease)?[..])?,
        };
        let body = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec()?;
        match response.status().as_u16() {
            200 | 201 => Ok(Answer::Lease(serde_json::from_slice(&body)?)),
            404 => Ok(Answer::Missing),
            409 => Ok(Answer::Conflict),
            status => Err(Error::Status(status)),
        }
    }

    fn connect(&self, within: Duration) -> Result<Agent, Error> {
        let file = self.credentials.join("ca.crt");
        let authorities: Vec<Certificate<'static>> = parse_pem(&self.read("ca.crt")?)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if authorities.is_empty() {
            return Err(Error::Authority(file));
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        Ok(Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            // the engine's container may name a proxy in its environment; the token goes to the API server only
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(within))
            .max_idle_connections(1)
            .input_buffer_size(16 << 10)
            .output_buffer_size(16 << 10)
            .user_agent(concat!("sqledge-guard/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let file = self.credentials.join(name);
        fs::read(&file).map_err(|source| Error::Credentials { file, source })
    }
}
