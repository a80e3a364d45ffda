//! What a figure was measured with: stands beside each of them.

use std::{fs, path::Path, process::Command};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Under which a part was measured.
#[derive(Clone, Serialize, Deserialize)]
pub struct Conditions {
    /// When it began.
    pub started: Timestamp,
    /// Of the checkout.
    pub commit: String,
    /// Whether files differed.
    pub dirty: bool,
    /// /proc/loadavg at the beginning.
    pub load_average: String,
    /// Of the machine.
    pub processors: usize,
}

impl Conditions {
    /// As they are now.
    pub fn now(checkout: &Path) -> Self {
        let git = |words: &[&str]| {
            let output = Command::new("git").arg("-C").arg(checkout).args(words).output().ok()?;
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Self {
            started: Timestamp::now(),
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
            dirty: git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty()),
            load_average: fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        }
    }
}
