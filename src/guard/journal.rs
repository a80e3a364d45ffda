//! What the guard says: to the container's log, and last of all to the kubelet.
//!
//! A container runtime that is stuck no longer empties the pipe behind standard error, and a write to it then never
//! returns. The thread that must kill in time only hands its lines over.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::boot;

/// Where the kubelet looks for the one sentence that explains an ended container. It puts the file there, so one that is
/// missing is not to be made.
const TERMINATION_MESSAGE: &str = "/dev/termination-log";

/// How each of its lines begins, in a log that it shares with the engine.
pub const VOICE: &str = "sqledge-guard ";

/// Lines that wait for a slow reader; more are counted and dropped.
const WAITING: usize = 256;

/// Takes lines from anywhere and never makes the speaker wait.
#[derive(Clone, Debug)]
pub struct Journal {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    /// Answered when everything before it was written.
    Mark(SyncSender<()>),
}

impl Journal {
    /// Opens the journal on standard error.
    pub fn open() -> Self {
        let (lines, entries) = sync_channel::<Entry>(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::spawn(move || {
            for entry in entries {
                match entry {
                    Entry::Line(line) => {
                        let lost = match counter.swap(0, Ordering::Relaxed) {
                            0 => String::new(),
                            lost => format!(" ({lost} earlier lines lost)"),
                        };
                        // nobody is left to be told that the log is gone
                        let _ = writeln!(std::io::stderr(), "{line}{lost}");
                    }
                    Entry::Mark(done) => {
                        let _ = done.try_send(());
                    }
                }
            }
        });
        Self { lines, dropped }
    }

    /// One line, with the time since boot, which is the guard's own.
    pub fn say(&self, text: &str) {
        let now = boot::now();
        let line = format!("{VOICE}{}.{:03} {text}", now.as_secs(), now.subsec_millis());
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Entry::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything was written, but no longer than that.
    pub fn finish(&self, within: Duration) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Entry::Mark(done)).is_ok() {
            let _ = written.recv_timeout(within);
        }
    }
}

/// The sentence that `kubectl describe` shows for the ended container; best effort, and bounded.
pub fn last_words(sentence: &str, within: Duration) {
    let sentence = sentence.to_owned();
    let (done, written) = channel();
    thread::spawn(move || {
        write_last_words(&sentence);
        let _ = done.send(());
    });
    let _ = written.recv_timeout(within);
}

/// The same where nothing is at stake yet.
pub fn write_last_words(sentence: &str) {
    // the same sentence is in the log, which the kubelet falls back to
    let _ = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(TERMINATION_MESSAGE)
        .and_then(|mut file| file.write_all(sentence.as_bytes()));
}
