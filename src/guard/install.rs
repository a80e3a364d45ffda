//! Leaves a copy of this program where the engine's container finds it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Name of the copy.
pub const PROGRAM: &str = "sqledge-guard";

/// The copy failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy the guard to {}: {source}: check the node's free disk space, the pod tries again by itself", to.display())]
pub struct Error {
    to: PathBuf,
    source: io::Error,
}

/// Copies the running program into a folder.
pub fn copy_self(folder: &Path) -> Result<(), Error> {
    let to = folder.join(PROGRAM);
    copy(&to).map_err(|source| Error { to, source })
}

fn copy(to: &Path) -> io::Result<()> {
    // under another name first: an init container may be run again, and half a program must never be started
    let new = to.with_extension("new");
    fs::copy(std::env::current_exe()?, &new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    fs::rename(&new, to)
}
