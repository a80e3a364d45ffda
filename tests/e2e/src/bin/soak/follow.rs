//! Files that grow: what is new in them since the last look.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
};

use e2e::{Error, Result};

/// The lines of a file, each once.
pub struct Lines {
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

impl Lines {
    /// From the beginning.
    pub fn of(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            rest: Vec::new(),
        }
    }

    /// Those that are complete and were not read yet. A file that does not exist (yet) has none.
    pub fn fresh(&mut self) -> Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("open", &self.path)(error)),
        };
        let mut read = || {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut self.rest)
        };
        let count = read().map_err(Error::file("read", &self.path))?;
        self.offset += u64::try_from(count).expect("a file has fewer than 2^64 bytes");
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn every_line_is_read_once_and_a_torn_one_only_when_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("soak-lines-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let mut lines = Lines::of(path.clone());
        assert!(lines.fresh().unwrap().is_empty(), "there is no file yet");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.fresh().unwrap(), ["one"]);
        assert!(lines.fresh().unwrap().is_empty());
        file.write_all(b"o\nthree\n").unwrap();
        assert_eq!(lines.fresh().unwrap(), ["two", "three"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
