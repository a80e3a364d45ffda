//! A sign of life for the kubelet: the time since boot at which the guard last looked around, in a file.
//!
//! A guard that is stopped (SIGSTOP) or stuck can neither renew nor kill, and its database would live on unguarded. The
//! kubelet's liveness probe reads the file with `sqledge-guard alive` and ends such a container. The file belongs on a
//! volume in memory: it must not depend on a disk whether a database is restarted.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::boot;

/// How often the file is written.
const PERIOD: Duration = Duration::from_secs(1);

/// A guard that has not looked around for so long is stopped or stuck.
pub const STALE: Duration = Duration::from_secs(10);

/// Why the guard does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No guard has written it.
    #[error("cannot read the guard's heartbeat {}: {source}: the guard has not started yet, or the volume is not mounted", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not a heartbeat.
    #[error("the guard's heartbeat {} is not a number: something else wrote that file", .0.display())]
    Damaged(PathBuf),
    /// The guard is stopped or stuck.
    #[error("the guard last showed a sign of life {age:?} ago: it is stopped or stuck, and its container must end")]
    Stale {
        /// How old the heartbeat is.
        age: Duration,
    },
}

/// The guard's end: the main loop beats, a thread writes.
#[derive(Clone, Debug)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// Writes the first heartbeat, then goes on in a thread of its own, because a write may take long.
    pub fn start(file: &Path) -> io::Result<Self> {
        let heart = Self(Arc::new(AtomicU64::new(0)));
        heart.beat();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
        let beats = Arc::clone(&heart.0);
        let write = move || file.write_all_at(format!("{:020}\n", beats.load(Ordering::Relaxed)).as_bytes(), 0);
        write()?;
        thread::spawn(move || {
            loop {
                thread::sleep(PERIOD);
                // the kubelet notices a file that grows old, which is right if it cannot be written
                let _ = write();
            }
        });
        Ok(heart)
    }

    /// Called by the main loop, and by nobody else, whenever it has looked around.
    pub fn beat(&self) {
        let now = u64::try_from(boot::now().as_millis()).unwrap_or(u64::MAX);
        self.0.store(now, Ordering::Relaxed);
    }
}

/// The probe's end.
pub fn check(file: &Path, within: Duration) -> Result<(), Error> {
    let text = fs::read_to_string(file).map_err(|source| Error::Unreadable {
        file: file.to_owned(),
        source,
    })?;
    let beat = text
        .trim()
        .parse()
        .map(Duration::from_millis)
        .map_err(|_| Error::Damaged(file.to_owned()))?;
    let age = boot::now().saturating_sub(beat);
    if age > within {
        Err(Error::Stale { age })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::super::boot;
    use super::{Error, Heart, check};

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sqledge-heartbeat-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_started_guard_is_alive_at_once() {
        let file = file("life");
        let heart = Heart::start(&file).expect("a heartbeat");
        heart.beat();
        check(&file, Duration::from_secs(600)).expect("alive");

        fs::remove_file(file).expect("removed");
    }

    #[test]
    fn a_heartbeat_that_grew_old_is_no_life() {
        let file = file("old");
        let old = boot::now().saturating_sub(Duration::from_secs(11));
        fs::write(&file, old.as_millis().to_string()).expect("written");
        let error = check(&file, Duration::from_secs(10)).expect_err("stale");
        assert!(matches!(error, Error::Stale { .. }), "{error}");
        fs::remove_file(file).expect("removed");
    }

    #[test]
    fn without_a_heartbeat_there_is_no_life() {
        let file = file("none");
        let error = check(&file, Duration::from_secs(10)).expect_err("no file");
        assert!(matches!(error, Error::Unreadable { .. }), "{error}");
        fs::write(&file, "soon").expect("written");
        let error = check(&file, Duration::from_secs(10)).expect_err("no number");
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        fs::remove_file(file).expect("removed");
    }
}
