//! The engine's folder, and the exclusive claim on it: the lock on `data/master.mdf`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the folder cannot be used; the texts are the real engine's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// A folder could not be made.
    #[error("The system directory [{0}] could not be created. Errno [{1}]")]
    Folder(PathBuf, io::Error),
    /// Another engine has it, or the file cannot be opened.
    #[error(
        "Error {code}({reason}) occurred while opening file '{path}' to obtain configuration information at startup. \
         An invalid startup option might have caused the error. Verify your startup options, and correct or remove \
         them if necessary."
    )]
    Master {
        /// The file.
        path: PathBuf,
        /// Windows' number for the reason, which the real engine prints on Linux too.
        code: u32,
        /// The reason.
        reason: String,
    },
}

/// The claim; it lasts as long as the process.
///
/// The lock is a `flock` on a file handle of its own that is never closed: `SQLite`'s locks belong to the process and
/// would be lost with any other handle on the same file.
pub struct Claim {
    data: PathBuf,
    unclean: bool,
    _lock: File,
}

impl Claim {
    /// Makes the folders below `root` and locks `master.mdf`.
    pub fn take(root: &Path) -> Result<Self, ClaimError> {
        for name in [".system", "data", "log", "secrets"] {
            let path = root.join(name);
            DirBuilder::new()
                .recursive(true)
                .mode(0o770)
                .create(&path)
                .map_err(|error| ClaimError::Folder(path.clone(), error))?;
        }
        let data = root.join("data");
        let path = data.join("master.mdf");
        let denied = |code, reason: String| ClaimError::Master {
            path: path.clone(),
            code,
            reason,
        };
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let lock = lock.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => denied(5, "Access is denied.".to_owned()),
            _ => denied(1117, error.to_string()),
        })?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| denied(5, "Access is denied.".to_owned()))?;
        let unclean = has_logs(&data).map_err(|error| denied(1117, error.to_string()))?;
        Ok(Self {
            data,
            unclean,
            _lock: lock,
        })
    }

    /// The folder of the database files.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// True when the last stop left a log behind.
    pub fn was_unclean(&self) -> bool {
        self.unclean
    }
}

/// Makes new or removed names in `folder` survive a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn has_logs(data: &Path) -> io::Result<bool> {
    for entry in data.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // tempdb is made anew at each start, so its log says nothing
        if name.ends_with(".mdf-wal") && !name.starts_with("tempdb") && entry.metadata()?.len() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_folder_is_refused_with_the_real_engines_text() {
        let folder = tempfile::tempdir().unwrap();
        let first = Claim::take(folder.path()).unwrap();
        let error = Claim::take(folder.path()).err().unwrap().to_string();
        assert!(
            error.starts_with("Error 5(Access is denied.) occurred while opening file '"),
            "{error}"
        );
        assert!(error.contains("master.mdf"));
        drop(first);
        Claim::take(folder.path()).unwrap();
    }

    #[test]
    fn a_log_left_behind_means_an_unclean_stop() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Claim::take(folder.path()).unwrap().was_unclean());
        std::fs::write(folder.path().join("data/orders.mdf-wal"), b"x").unwrap();
        assert!(Claim::take(folder.path()).unwrap().was_unclean());
    }
}
