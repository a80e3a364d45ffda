//! The guard as a program: what the kubelet sees of it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sqledge-guard-{}-{name}", std::process::id()));
        for part in ["volume/data", "shared"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        Self(path)
    }

    fn at(&self, part: &str) -> PathBuf {
        self.0.join(part)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &Path, words: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(program)
        .args(words)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the program starts")
}

fn guard(words: &[&str], env: &[(&str, &str)]) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_sqledge-guard")), words, env)
}

fn install(folder: &Folder, env: &[(&str, &str)]) -> Output {
    let (volume, shared) = (folder.at("volume"), folder.at("shared"));
    guard(
        &[
            "install",
            "--volume",
            &volume.to_string_lossy(),
            "--to",
            &shared.to_string_lossy(),
        ],
        env,
    )
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const OURS: [(&str, &str); 2] = [("SQLEDGE_VOLUME_ID", "id-1"), ("SQLEDGE_CLAIM", "orders-data")];

#[test]
fn on_a_new_volume_it_leaves_its_mark_and_a_copy_of_itself_that_runs() {
    let folder = Folder::new("new");
    // twice, because the kubelet may run an init container again
    for _ in 0..2 {
        let output = install(&folder, &OURS);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(
        fs::read_to_string(folder.at("volume/.sqledge-volume-id")).expect("a mark"),
        "id-1\nempty\n"
    );

    let copy = run(&folder.at("shared/sqledge-guard"), &["probe"], &[]);
    assert!(!copy.status.success());
    assert!(said(&copy).contains("usage: sqledge-guard"), "{}", said(&copy));
}

#[test]
fn a_wrong_volume_is_refused_in_one_sentence_and_gets_no_guard() {
    let folder = Folder::new("wrong");
    fs::write(folder.at("volume/.sqledge-volume-id"), "id-2\ndata\n").expect("another mark");
    let output = install(&folder, &OURS);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(
        said.contains("orders-data") && said.contains("id-2") && said.trim_end().lines().count() == 1,
        "{said}"
    );
    assert!(!folder.at("shared/sqledge-guard").exists());
}

#[test]
fn a_volume_with_data_is_adopted_only_on_request() {
    let folder = Folder::new("adopt");
    fs::write(folder.at("volume/data/master.mdf"), "pages").expect("a database");
    assert!(!install(&folder, &OURS).status.success());
    let adopting = [OURS[0], OURS[1], ("SQLEDGE_ADOPT", "true")];
    assert!(install(&folder, &adopting).status.success());
}

#[test]
fn without_knowing_what_to_expect_it_touches_nothing() {
    let folder = Folder::new("unknown");
    let output = install(&folder, &[("SQLEDGE_CLAIM", "orders-data")]);
    assert!(
        !output.status.success() && said(&output).contains("SQLEDGE_VOLUME_ID"),
        "{}",
        said(&output)
    );
    assert!(!folder.at("volume/.sqledge-volume-id").exists());
}

#[test]
fn the_first_answer_of_an_engine_is_noted_on_the_volume() {
    let folder = Folder::new("record");
    fs::write(folder.at("volume/.sqledge-volume-id"), "id-1\nempty\n").expect("a mark");
    fs::write(folder.at("volume/data/master.mdf"), "pages").expect("a database");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let engine = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 8];
        stream.read_exact(&mut request).expect("a header");
        let mut payload = vec![0; usize::from(u16::from_be_bytes([request[2], request[3]])) - 8];
        stream.read_exact(&mut payload).expect("a payload");
        assert_eq!(request[0], 0x12);
        stream
            .write_all(&[4, 1, 0, 20, 0, 0, 1, 0, 0, 0, 6, 0, 6, 0xFF, 16, 0, 0x0f, 0xa1, 0, 0])
            .expect("sent");
    });
    let volume = folder.at("volume");
    let output = guard(&["probe", "--port", &port, "--record", &volume.to_string_lossy()], &[]);
    assert!(output.status.success(), "{}", said(&output));
    engine.join().expect("the engine saw PRELOGIN");
    assert_eq!(
        fs::read_to_string(folder.at("volume/.sqledge-volume-id")).expect("a mark"),
        "id-1\ndata\n"
    );
}

#[test]
fn an_engine_that_accepts_and_never_answers_fails_the_probe_before_the_kubelet_loses_patience() {
    // nobody accepts: the kernel completes the connection, as it does for a stopped process
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    let begin = std::time::Instant::now();
    let output = guard(&["probe", "--port", &port], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("did not answer"), "{}", said(&output));
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
}
