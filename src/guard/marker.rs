//! The marker file: which database a volume belongs to.
//!
//! An engine that finds no system databases silently makes new ones and starts. A wrong, swapped or emptied volume then
//! looks like a healthy database without data. So every volume carries a small file, and it is compared with what the
//! claim says before an engine may start.
//!
//! | file | `data/master.mdf` | what happens |
//! |---|---|---|
//! | none | none | new volume: the file is written |
//! | none | there | refused, unless the claim is the user's own: then adopted |
//! | another identity, or unreadable | any | refused |
//! | ours, "empty" | none | the engine never got as far as making its databases: go on |
//! | ours, "empty" | there | noted: "data" |
//! | ours, "data" | there | go on |
//! | ours, "data" | none | refused: the volume was emptied |

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Name of the file, in the root of the volume.
pub const FILE: &str = ".sqledge-volume-id";

/// The file without which an engine makes new system databases.
const SYSTEM_DATABASE: &str = "data/master.mdf";

/// What is known about the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No databases yet.
    Empty,
    /// There are databases, or there were.
    Data,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Data => "data",
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marker {
    id: String,
    state: State,
}

/// What the volume must say, and how to name it in a message.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Identity that the claim's annotation names.
    pub id: &'a str,
    /// Name of the claim.
    pub claim: &'a str,
    /// Whether an unmarked volume that holds a database may be taken over.
    pub adopt: bool,
}

/// Why an engine must not start on this volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume belongs to another database.
    #[error(
        "the volume of claim {claim} belongs to another database (it says {found}, the claim says {expected}): put the right \
         volume back, or, if this is the right one, set the claim's annotation sqledge.io/volume-id to {found}"
    )]
    Foreign {
        /// Name of the claim.
        claim: String,
        /// Identity on the volume.
        found: String,
        /// Identity on the claim.
        expected: String,
    },
    /// The volume holds a database that nobody marked.
    #[error(
        "the volume of claim {claim} already holds a database that this instance did not make: to take it over, make the \
         instance again with spec.storage.existingClaim: {claim}; otherwise give it an empty volume"
    )]
    Unmarked {
        /// Name of the claim.
        claim: String,
    },
    /// The databases are gone.
    #[error(
        "the volume of claim {claim} was emptied: it held a database, and {SYSTEM_DATABASE} is gone: restore the files, or \
         delete {FILE} on the volume to begin with an empty database"
    )]
    Emptied {
        /// Name of the claim.
        claim: String,
    },
    /// The file makes no sense.
    #[error(
        "{FILE} on the volume of claim {claim} is damaged: check the volume, then delete that file to have it written again"
    )]
    Damaged {
        /// Name of the claim.
        claim: String,
    },
    /// The volume cannot be read or written.
    #[error(
        "cannot {what} on the volume of claim {claim}: {source}: check the volume, and that it can be written by the engine's \
         user (fsGroup in spec.podSecurityContext, or the storage's own permissions)"
    )]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Name of the claim.
        claim: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Compares the volume with what is expected, and marks it where that is due. Nothing is written to a refused volume.
pub fn check(volume: &Path, expected: &Expected) -> Result<(), Error> {
    let Expected { id, claim, adopt } = *expected;
    let claim = || claim.to_owned();
    let io = |what: &'static str| {
        move |source| Error::Io {
            what,
            claim: expected.claim.to_owned(),
            source,
        }
    };

    let text = read(volume).map_err(io("read the marker file"))?;
    let has_data = has_data(volume).map_err(io("look for the system databases"))?;
    let marker = match text {
        None => None,
        Some(text) => Some(parse(&text).ok_or_else(|| Error::Damaged { claim: claim() })?),
    };
    let state = match (&marker, has_data) {
        (None, true) if !adopt => return Err(Error::Unmarked { claim: claim() }),
        (Some(marker), _) if marker.id != id => {
            return Err(Error::Foreign {
                claim: claim(),
                found: marker.id.clone(),
                expected: id.to_owned(),
            });
        }
        (Some(Marker { state: State::Data, .. }), false) => return Err(Error::Emptied { claim: claim() }),
        (_, false) => State::Empty,
        (_, true) => State::Data,
    };
    let due = Marker {
        id: id.to_owned(),
        state,
    };
    if marker.as_ref() != Some(&due) {
        write(volume, &due).map_err(io("write the marker file"))?;
    }
    Ok(())
}

/// Notes that the volume holds databases now. Called when the engine first answers; without it a volume that is emptied
/// during its first pod's life would pass for one that was never filled.
pub fn record(volume: &Path) -> Result<(), Error> {
    let io = |what: &'static str| {
        move |source| Error::Io {
            what,
            claim: volume.display().to_string(),
            source,
        }
    };
    let marker = read(volume)
        .map_err(io("read the marker file"))?
        .and_then(|text| parse(&text));
    if let Some(Marker {
        id,
        state: State::Empty,
    }) = marker
        && has_data(volume).map_err(io("look for the system databases"))?
    {
        write(volume, &Marker { id, state: State::Data }).map_err(io("write the marker file"))?;
    }
    Ok(())
}

fn read(volume: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(volume.join(FILE)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the system databases are there. An error is not "no": on a failing disk it would pass for an empty volume.
fn has_data(volume: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(volume.join(SYSTEM_DATABASE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Two lines: identity and state. More lines are for later versions.
fn parse(text: &[u8]) -> Option<Marker> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let id = lines
        .next()
        .filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let word = lines.next()?;
    let state = [State::Empty, State::Data]
        .into_iter()
        .find(|state| state.word() == word)?;
    Some(Marker {
        id: id.to_owned(),
        state,
    })
}

/// Replaces the file so that after a power failure either the old or the new one is there, whole.
fn write(volume: &Path, marker: &Marker) -> io::Result<()> {
    let new = volume.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    file.write_all(format!("{}\n{}\n", marker.id, marker.state.word()).as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, volume.join(FILE))?;
    // the new name is safe on disk only once the folder is
    File::open(volume)?.sync_all()
}

#[cfg(test)]
#[path = "marker_tests.rs"]
mod tests;
