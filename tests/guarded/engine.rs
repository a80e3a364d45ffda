//! A stand-in for the engine that is as awkward as the real one: two processes, of which the first only waits for the second.
//!
//! It is this test binary itself, started again with `ENGINE_FOLDER` in its environment. The second process answers the
//! first packet of the protocol and keeps writing the time to the volume. Files in the folder tell it what to do next.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::SIGTERM;
use sqledge_operator::guard::boot;

const ANSWER: [u8; 20] = [4, 1, 0, 20, 0, 0, 1, 0, 0, 0, 6, 0, 6, 0xFF, 16, 0, 0x0f, 0xa1, 0, 0];

/// Made by the test, with an exit code in it: the second process ends. Each order is taken away when it is obeyed.
pub const EXIT: &str = "order-exit";
/// Made by the test: the second process stops itself.
pub const HANG: &str = "order-hang";
/// Made by the test: the second process fills its standard error.
pub const FLOOD: &str = "order-flood";
/// Left when standard error takes no more.
pub const FLOODED: &str = "flooded";
/// Left by an engine that was asked to stop and did.
pub const CLEAN: &str = "clean";
/// Left by an engine that found another one alive.
pub const TWO: &str = "two-engines";
/// One line for each start: time since boot.
pub const STARTS: &str = "starts";
/// One line for each write: time since boot.
pub const WRITES: &str = "writes";
/// One line for each write by what was started beside the engine: time since boot.
pub const INTRUSIONS: &str = "intrusions";

/// Runs as the engine where the environment says so, and does not return then.
pub fn play() {
    let Some(folder) = std::env::var_os("ENGINE_FOLDER").map(PathBuf::from) else {
        return;
    };
    if std::env::var_os("ENGINE_INTRUDER").is_some() {
        intruder(&folder);
    }
    if let Ok(code) = std::env::var("ENGINE_FAILS") {
        note(&folder, STARTS);
        eprintln!("engine: the settings make no sense");
        std::process::exit(code.parse().expect("a code"));
    }
    if std::env::var_os("ENGINE_SECOND").is_some() {
        second(&folder);
    }
    first();
}

/// No engine: what somebody started beside it, who does not care for SIGTERM.
fn intruder(folder: &Path) -> ! {
    signal_hook::flag::register(SIGTERM, Arc::default()).expect("a handler");
    loop {
        note(folder, INTRUSIONS);
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the second, and ends as it ended.
fn first() -> ! {
    // as the real one: the signal is for the second process
    signal_hook::flag::register(SIGTERM, Arc::default()).expect("a handler");
    let status = Command::new(std::env::current_exe().expect("a program"))
        .args(std::env::args_os().skip(1))
        .env("ENGINE_SECOND", "1")
        .status()
        .expect("a second process");
    std::process::exit(status.code().unwrap_or(99));
}

fn second(folder: &Path) -> ! {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&asked)).expect("a handler");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        File::create(folder.join(TWO)).expect("noted");
    }
    note(folder, STARTS);
    let port: u16 = variable("ENGINE_PORT").parse().expect("a port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the engine's port");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 47];
            if stream.read_exact(&mut request).is_ok() {
                let _ = stream.write_all(&ANSWER);
            }
        }
    });
    loop {
        note(folder, WRITES);
        if let Some(code) = obeyed(folder, EXIT) {
            std::process::exit(code.trim().parse().expect("a code"));
        }
        if obeyed(folder, HANG).is_some() {
            kill_process(getpid(), Signal::STOP).expect("stopped");
        }
        if obeyed(folder, FLOOD).is_some() {
            flood(folder.to_owned());
        }
        if asked.load(Ordering::SeqCst) {
            let seconds = std::env::var("ENGINE_STOP_SECONDS").map_or(0, |seconds| seconds.parse().expect("a number"));
            thread::sleep(Duration::from_secs(seconds));
            note(folder, CLEAN);
            std::process::exit(0);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn obeyed(folder: &Path, name: &str) -> Option<String> {
    let file = folder.join(name);
    let order = std::fs::read_to_string(&file).ok()?;
    std::fs::remove_file(file).expect("obeyed");
    Some(order)
}

/// Writes to standard error for ever, and says when a line takes so long that nobody can be reading. The lines are short, so
/// that there is no room left for one of the guard's.
fn flood(folder: PathBuf) {
    let lines = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&lines);
    thread::spawn(move || {
        loop {
            eprintln!("x");
            written.fetch_add(1, Ordering::SeqCst);
        }
    });
    thread::spawn(move || {
        let mut before = usize::MAX;
        while before != lines.load(Ordering::SeqCst) {
            before = lines.load(Ordering::SeqCst);
            thread::sleep(Duration::from_secs(1));
        }
        File::create(folder.join(FLOODED)).expect("noted");
    });
}

fn variable(name: &str) -> String {
    std::env::var(name).expect(name)
}

fn note(folder: &Path, name: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(folder.join(name))
        .expect("a file");
    writeln!(file, "{}", boot::now().as_millis()).expect("written");
}
