//! A program that ends with this process, however that ends: a shell starts it and waits at the end of a pipe; the pipe closes, and the
//! shell ends exactly the program that it started and removes its folder.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEEPER: &str = r#"
folder=$1; shift
# memory is cheap for a few minutes, and processors are not
export GOGC=400
"$@" >"$folder/log" 2>&1 </dev/null & program=$!
echo $program
cat >/dev/null
kill -9 $program; wait $program 2>/dev/null
rm -rf "$folder"
# the last one of those that share it
rmdir "$(dirname "$folder")" 2>/dev/null
"#;

/// A running program with a folder of its own.
pub struct Program {
    keeper: Child,
    pid: String,
    folder: PathBuf,
}

impl Program {
    /// Starts it; `folder` exists already, or is made.
    pub fn start(folder: &Path, words: &[String], environment: &[(&str, &str)]) -> Self {
        fs::create_dir_all(folder).expect("a folder of our own");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", &folder.display().to_string()])
            .args(words)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("a pipe"))
            .read_line(&mut pid)
            .expect("the shell started the program");
        Self {
            keeper,
            pid: pid.trim().to_owned(),
            folder: folder.to_owned(),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The end of what it said, last line first.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        tail.join("\n")
    }

    /// Does something while the program stands still.
    pub fn paused<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        self.signal("-STOP");
        let result = meanwhile();
        self.signal("-CONT");
        result
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid]).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill {signal} {}",
            self.pid
        );
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
