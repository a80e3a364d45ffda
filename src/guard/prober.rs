//! The thread that asks the engine whether it is there, and notes on the volume that it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryIter, channel};
use std::thread;
use std::time::Duration;

use super::alarm::Bell;
use super::journal::Journal;
use super::{boot, marker, probe};

/// How long an answer may take. Three of them and one [`PACE`] are the time in which a hung engine is found: below ten seconds.
const LIMIT: Duration = Duration::from_millis(2500);
/// From one question to the next.
const PACE: Duration = Duration::from_secs(2);
/// The same until a started engine answers.
const EAGER_PACE: Duration = Duration::from_millis(500);

/// What came of one question.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// When it was asked.
    pub asked: Duration,
    /// Whether the engine answered.
    pub answered: bool,
}

/// Asks for ever.
#[derive(Debug)]
pub struct Prober {
    findings: Receiver<Finding>,
    starting: Arc<AtomicBool>,
}

impl Prober {
    /// Starts the thread. The first answer of each start is noted on the volume: an empty one is then a lost one.
    pub fn start(port: u16, volume: PathBuf, journal: Journal, bell: Bell) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let starting = Arc::new(AtomicBool::new(false));
        let (found, findings) = channel();
        let flag = Arc::clone(&starting);
        thread::spawn(move || {
            loop {
                let asked = boot::now();
                let answered = probe::ask(address, LIMIT).is_ok();
                if found.send(Finding { asked, answered }).is_err() {
                    return;
                }
                bell.ring();
                if answered && flag.swap(false, Ordering::SeqCst) {
                    note(volume.clone(), journal.clone());
                }
                let pace = if flag.load(Ordering::SeqCst) { EAGER_PACE } else { PACE };
                thread::sleep((asked + pace).saturating_sub(boot::now()));
            }
        });
        Self { findings, starting }
    }

    /// An engine was started: the next first answer is awaited.
    pub fn engine_started(&self) {
        self.starting.store(true, Ordering::SeqCst);
    }

    /// What was found since the last time.
    pub fn findings(&self) -> TryIter<'_, Finding> {
        self.findings.try_iter()
    }
}

/// In a thread of its own: a volume that does not answer must not look like an engine that does not.
fn note(volume: PathBuf, journal: Journal) {
    let work = move || {
        if let Err(error) = marker::record(&volume) {
            journal.say(&error.to_string());
        }
    };
    // a pod that may have no more threads notes it at its next start
    let _ = thread::Builder::new().spawn(work);
}
