//! Container images from static binaries: a few files, one layer, written as an archive that `ctr images import` reads.
//!
//! There is no registry to pull from and no builder to ask; the format is a tar file with a layer, a configuration and a
//! list of both. Archives are reproducible: same content, same bytes.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::error::{Error, Result};

/// One thing in an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Where, absolute.
    pub path: String,
    /// What.
    pub content: Content,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: u64,
}

/// What an entry is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Content {
    /// An empty folder.
    Folder,
    /// A copy of a file of this machine.
    CopyOf(PathBuf),
    /// A file with this text.
    Text(String),
    /// A link to another path of the image.
    LinkTo(String),
}

impl Entry {
    /// A folder.
    pub fn folder(path: &str, mode: u32, owner: u64) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::Folder,
            mode,
            owner,
        }
    }

    /// A program.
    pub fn program(path: &str, from: impl Into<PathBuf>) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::CopyOf(from.into()),
            mode: 0o755,
            owner: 0,
        }
    }

    /// A text file that everybody may read.
    pub fn text(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::Text(text.to_owned()),
            mode: 0o644,
            owner: 0,
        }
    }

    /// A link.
    pub fn link(path: &str, to: &str) -> Self {
        Self {
            path: path.to_owned(),
            content: Content::LinkTo(to.to_owned()),
            mode: 0o777,
            owner: 0,
        }
    }
}

/// An image to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Image {
    /// Its full name, such as `localhost/busybox:1`.
    pub reference: String,
    /// What is in it. Parent folders are made as needed.
    pub entries: Vec<Entry>,
    /// The program that is always run.
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program when there is no entrypoint.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// A user's number, or empty for root.
    pub user: String,
}

impl Image {
    /// Writes the archive into `folder`, named by its content, and returns its path. What is there already is kept.
    pub fn write_into(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("{}-{}.tar", self.file_stem(), self.fingerprint()?));
        if !path.exists() {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
            self.write(&path)?;
            self.remove_older(&path);
        }
        Ok(path)
    }

    /// Removes earlier versions of the archive, unless they are so young that another testbed may be reading them.
    fn remove_older(&self, newest: &Path) {
        let stem = self.file_stem();
        let Some(entries) = newest.parent().and_then(|folder| fs::read_dir(folder).ok()) else {
            return;
        };
        for path in entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path != newest)
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // a fingerprint is 16 characters, so that no other image's longer name is taken for this one's
            let ours = name
                .strip_prefix(&stem)
                .is_some_and(|rest| rest.len() == "-.tar".len() + 16);
            let age = path
                .metadata()
                .and_then(|about| about.modified())
                .map(|time| time.elapsed());
            if ours && age.is_ok_and(|age| age.is_ok_and(|age| age > Duration::from_secs(600))) {
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let layer_path = path.with_extension(format!("layer.{}", std::process::id()));
        let draft = path.with_extension(format!("new.{}", std::process::id()));
        let written = self.write_layer(&layer_path).and_then(|digest| {
            let config = self.config(&digest).to_string();
            let config_name = format!("{:x}.json", Sha256::digest(config.as_bytes()));
            let layer_name = format!("{digest}.tar");
            let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}]);
            let failed = || Error::file("write", &draft);
            let mut archive = Builder::new(File::create(&draft).map_err(failed())?);
            let layer = File::open(&layer_path).map_err(Error::file("read", &layer_path))?;
            let size = layer.metadata().map_err(Error::file("read", &layer_path))?.len();
            append(&mut archive, &layer_name, size, layer).map_err(failed())?;
            for (name, text) in [(config_name.as_str(), config), ("manifest.json", manifest.to_string())] {
                append(&mut archive, name, text.len() as u64, text.as_bytes()).map_err(failed())?;
            }
            archive.into_inner().map_err(failed())?;
            fs::rename(&draft, path).map_err(Error::file("write", path))
        });
        let _ = fs::remove_file(layer_path);
        written
    }

    /// The name of the image as the beginning of a file name.
    fn file_stem(&self) -> String {
        self.reference
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect()
    }

    /// Tells one content from another without reading large files: size and time of change stand for it.
    fn fingerprint(&self) -> Result<String> {
        use std::os::unix::fs::MetadataExt;
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(self).expect("an image's description is always valid JSON"));
        for entry in &self.entries {
            if let Content::CopyOf(source) = &entry.content {
                let about = fs::metadata(source).map_err(Error::file("read", source))?;
                digest.update(format!("{} {} {}", about.len(), about.mtime(), about.mtime_nsec()));
            }
        }
        Ok(format!("{:x}", digest.finalize())[..16].to_owned())
    }

    /// Writes the layer and returns its digest.
    fn write_layer(&self, path: &Path) -> Result<String> {
        let failed = || Error::file("write", path);
        let file = File::create(path).map_err(failed())?;
        let mut layer = Builder::new(Hashing {
            file: io::BufWriter::with_capacity(1 << 20, file),
            digest: Sha256::new(),
        });
        for folder in self.parents() {
            let header = header(EntryType::Directory, 0o755, 0, 0);
            append_with(&mut layer, header, &folder, io::empty()).map_err(failed())?;
        }
        for entry in &self.entries {
            let name = entry.path.trim_start_matches('/');
            match &entry.content {
                Content::Folder => {
                    let header = header(EntryType::Directory, entry.mode, entry.owner, 0);
                    append_with(&mut layer, header, &format!("{name}/"), io::empty()).map_err(failed())?;
                }
                Content::Text(text) => {
                    let header = header(EntryType::Regular, entry.mode, entry.owner, text.len() as u64);
                    append_with(&mut layer, header, name, text.as_bytes()).map_err(failed())?;
                }
                Content::CopyOf(source) => {
                    let file = File::open(source).map_err(Error::file("read", source))?;
                    let size = file.metadata().map_err(Error::file("read", source))?.len();
                    let header = header(EntryType::Regular, entry.mode, entry.owner, size);
                    append_with(&mut layer, header, name, file).map_err(failed())?;
                }
                Content::LinkTo(target) => {
                    let mut header = header(EntryType::Symlink, entry.mode, entry.owner, 0);
                    layer.append_link(&mut header, name, target).map_err(failed())?;
                }
            }
        }
        let mut hashing = layer.into_inner().map_err(failed())?;
        hashing.flush().map_err(failed())?;
        Ok(format!("{:x}", hashing.digest.finalize()))
    }

    /// Folders that entries lie in and that are not entries themselves, from the top.
    fn parents(&self) -> Vec<String> {
        let given = |path: &str| {
            self.entries
                .iter()
                .any(|e| e.path == path && matches!(e.content, Content::Folder))
        };
        let mut parents: Vec<String> = self
            .entries
            .iter()
            .flat_map(|entry| Path::new(&entry.path).ancestors().skip(1))
            .map(|path| path.to_string_lossy().into_owned())
            .filter(|path| path != "/" && !path.is_empty() && !given(path))
            .map(|path| format!("{}/", path.trim_start_matches('/')))
            .collect();
        parents.sort();
        parents.dedup();
        parents
    }

    fn config(&self, layer: &str) -> serde_json::Value {
        json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Cmd": self.command, "Env": self.environment, "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": self.reference}],
        })
    }
}

fn header(kind: EntryType, mode: u32, owner: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(size);
    header.set_mtime(0);
    header
}

fn append<W: Write>(archive: &mut Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    append_with(archive, header(EntryType::Regular, 0o644, 0, size), name, content)
}

fn append_with<W: Write>(
    archive: &mut Builder<W>,
    mut header: Header,
    name: &str,
    content: impl Read,
) -> io::Result<()> {
    archive.append_data(&mut header, name, content)
}

struct Hashing<W> {
    file: W,
    digest: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Image {
        Image {
            reference: "localhost/example:1".to_owned(),
            entries: vec![
                Entry::folder("/data", 0o770, 10001),
                Entry::text("/etc/motd", "hello"),
                Entry::link("/usr/bin/hi", "/etc/motd"),
            ],
            user: "10001".to_owned(),
            ..Image::default()
        }
    }

    fn names_and_owners(layer: impl Read) -> Vec<(String, u64)> {
        let mut archive = tar::Archive::new(layer);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|e| (e.path().unwrap().display().to_string(), e.header().uid().unwrap()))
            .collect()
    }

    #[test]
    fn a_layer_holds_parents_before_children_and_keeps_owners() {
        let file = std::env::temp_dir().join(format!("testbed-layer-{}", std::process::id()));
        example().write_layer(&file).unwrap();
        let found = names_and_owners(File::open(&file).unwrap());
        fs::remove_file(file).unwrap();
        let expected = [
            ("etc/", 0),
            ("usr/", 0),
            ("usr/bin/", 0),
            ("data/", 10001),
            ("etc/motd", 0),
            ("usr/bin/hi", 0),
        ];
        assert_eq!(found, expected.map(|(name, owner)| (name.to_owned(), owner)));
    }

    #[test]
    fn the_same_image_gives_the_same_bytes_and_lists_the_layer_by_its_real_digest() {
        let folder = std::env::temp_dir().join(format!("testbed-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let paths = [folder.join("a.tar"), folder.join("b.tar")];
        for path in &paths {
            example().write(path).unwrap();
        }
        let bytes = paths.each_ref().map(|path| fs::read(path).unwrap());
        assert_eq!(bytes[0], bytes[1]);
        let mut archive = tar::Archive::new(bytes[0].as_slice());
        let mut layer = archive.entries().unwrap().next().unwrap().unwrap();
        let name = layer.path().unwrap().display().to_string();
        let mut content = Vec::new();
        layer.read_to_end(&mut content).unwrap();
        assert_eq!(name, format!("{:x}.tar", Sha256::digest(&content)));
        fs::remove_dir_all(folder).unwrap();
    }
}
