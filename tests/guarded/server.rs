//! An API server that knows one Lease, and that can be told to misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sqledge_operator::guard::boot;

/// How the server treats what reaches it from now on, on old connections and on new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As an API server should.
    Well,
    /// Takes everything in and never answers: what a half-open connection looks like from its living end.
    Silent,
    /// Ends every connection at once.
    Refusing,
    /// Answers with this status, whatever was asked.
    Status(u16),
}

/// One request that was served well.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Time since boot at its arrival.
    pub at: Duration,
    pub write: bool,
    pub token: String,
    pub status: u16,
    /// Which connection brought it.
    pub connection: usize,
}

struct State {
    mood: Mood,
    lease: Option<Value>,
    version: u64,
    seen: Vec<Seen>,
    connections: usize,
}

/// The server; it ends with the test binary.
#[derive(Clone)]
pub struct Server {
    state: Arc<(Mutex<State>, Condvar)>,
    pub port: u16,
}

impl Server {
    /// Listens, and leaves its certificate and a token for the guard in a folder.
    pub fn start(credentials: &Path, lease: Value) -> Self {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(credentials.join("ca.crt"), certificate.cert.pem()).expect("written");
        std::fs::write(credentials.join("token"), "first\n").expect("written");
        let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).expect("a key");
        let chain = vec![CertificateDer::from(certificate.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate that fits its key");
        let tls = Arc::new(tls);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            state: Arc::default(),
            port: listener.local_addr().expect("an address").port(),
        };
        server.set(Some(lease));
        let acceptor = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, tls) = (acceptor.clone(), Arc::clone(&tls));
                // a client that goes away in the middle is none of the server's business
                thread::spawn(move || server.connection(stream.expect("a connection"), tls));
            }
        });
        server
    }

    fn connection(&self, stream: TcpStream, tls: Arc<ServerConfig>) -> Option<()> {
        let number = self.with(|state| {
            state.connections += 1;
            state.connections
        });
        self.allowed()?;
        let session = ServerConnection::new(tls).expect("a session");
        let mut stream = BufReader::new(StreamOwned::new(session, stream));
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
            let at = boot::now();
            let method = line.split(' ').next()?.to_owned();
            let (mut length, mut token) = (0, String::new());
            loop {
                line.clear();
                stream.read_line(&mut line).ok()?;
                let Some((name, value)) = line.trim().split_once(": ") else {
                    break;
                };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.parse().ok()?,
                    "authorization" => value.strip_prefix("Bearer ")?.clone_into(&mut token),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            self.allowed()?;
            let (status, answer) = self.serve(&method, &body);
            self.with(|state| {
                state.seen.push(Seen {
                    at,
                    write: method == "PUT",
                    token,
                    status,
                    connection: number,
                });
            });
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            let stream = stream.get_mut();
            stream.write_all(format!("{head}{answer}").as_bytes()).ok()?;
            stream.flush().ok()?;
        }
    }

    /// Returns once the mood lets an answer pass, or never.
    fn allowed(&self) -> Option<()> {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().expect("no panic");
        loop {
            match state.mood {
                Mood::Well | Mood::Status(_) => return Some(()),
                Mood::Refusing => return None,
                Mood::Silent => state = changed.wait(state).expect("no panic"),
            }
        }
    }

    fn serve(&self, method: &str, body: &[u8]) -> (u16, Value) {
        self.with(|state| {
            let failure = |code: u16| (code, json!({"kind": "Status", "code": code}));
            if let Mood::Status(code) = state.mood {
                return failure(code);
            }
            let Some(lease) = &state.lease else { return failure(404) };
            if method == "GET" {
                return (200, lease.clone());
            }
            let mut new: Value = serde_json::from_slice(body).expect("JSON");
            for field in ["uid", "resourceVersion"] {
                if new["metadata"][field] != lease["metadata"][field] {
                    return failure(409);
                }
            }
            state.version += 1;
            new["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.lease = Some(new.clone());
            (200, new)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (lock, changed) = &*self.state;
        let result = act(&mut lock.lock().expect("no panic"));
        changed.notify_all();
        result
    }

    /// Changes how requests are treated.
    pub fn mood(&self, mood: Mood) {
        self.with(|state| state.mood = mood);
    }

    /// The Lease as it is.
    pub fn lease(&self) -> Value {
        self.with(|state| state.lease.clone().expect("a Lease"))
    }

    /// Puts another Lease in its place, or none.
    pub fn set(&self, lease: Option<Value>) {
        self.with(|state| {
            state.version += 1;
            let version = state.version.to_string();
            state.lease = lease.map(|mut lease| {
                lease["metadata"]["resourceVersion"] = version.into();
                lease
            });
        });
    }

    /// Changes the Lease as somebody else would.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut lease = self.lease();
        edit(&mut lease);
        self.set(Some(lease));
    }

    /// Every request that was answered.
    pub fn seen(&self) -> Vec<Seen> {
        self.with(|state| state.seen.clone())
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            mood: Mood::Well,
            lease: None,
            version: 0,
            seen: Vec::new(),
            connections: 0,
        }
    }
}
