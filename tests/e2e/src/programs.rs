//! Where the programs, image archives and files of this checkout are.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Programs, archives, checkout.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder with the compiled programs of this workspace.
    pub folder: PathBuf,
    /// The folder with the image archives that tests/e2e/images.sh makes.
    pub archives: PathBuf,
    /// The checkout: chart, manifests, examples.
    pub checkout: PathBuf,
}

impl Programs {
    /// As the Makefile says, else as they lie after a plain `cargo build`.
    pub fn from_environment() -> Result<Self> {
        let own = env::current_exe().map_err(Error::file("find", "our own program"))?;
        let beside = own.parent().map(|folder| {
            if folder.ends_with("deps") {
                folder.join("..")
            } else {
                folder.to_owned()
            }
        });
        let cache = testbed::Layout::cache_from_environment()?;
        Ok(Self {
            folder: env::var_os("SQLEDGE_PROGRAMS")
                .map(PathBuf::from)
                .or(beside)
                .unwrap_or_default(),
            archives: env::var_os("SQLEDGE_ARCHIVES").map_or_else(|| cache.join("archives"), PathBuf::from),
            checkout: Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        })
    }

    /// A program of this workspace.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An image archive.
    pub fn archive(&self, name: &str) -> PathBuf {
        self.archives.join(name)
    }

    /// A file of the checkout, as text.
    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.checkout.join(file);
        std::fs::read_to_string(&path).map_err(Error::file("read", path))
    }
}
