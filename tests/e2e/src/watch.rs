//! Following objects as they change, with the time at which each change was seen here.

use std::{
    io::BufReader,
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    lab::Lab,
};

/// A state of an object.
pub struct Change {
    /// When it was seen.
    pub at: Timestamp,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: String,
    /// The object.
    pub object: Value,
}

/// Several `kubectl get --watch` that end with this value.
pub struct Watch {
    children: Vec<Child>,
    sender: Sender<Change>,
    receiver: Receiver<Change>,
}

impl Default for Watch {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            children: Vec::new(),
            sender,
            receiver,
        }
    }
}

impl Watch {
    /// Follows one more kind of objects; the words are those of `kubectl get`.
    pub fn follow(&mut self, lab: &Lab, words: &[&str]) -> Result<()> {
        let mut command = lab.bed().command("cp")?;
        command.arg(lab.bed().layout().tool("kubectl"));
        command
            .arg("get")
            .args(words)
            .args(["--watch", "--output-watch-events", "--output=json"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().map_err(Error::file("start", "kubectl"))?;
        let output = child.stdout.take().expect("standard output was asked for");
        let sender = self.sender.clone();
        thread::spawn(move || {
            let events = serde_json::Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>();
            // a torn last object is the end of the watch
            for mut event in events.map_while(std::result::Result::ok) {
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                let change = Change {
                    at: Timestamp::now(),
                    kind,
                    object: event["object"].take(),
                };
                if sender.send(change).is_err() {
                    break;
                }
            }
        });
        self.children.push(child);
        Ok(())
    }

    /// What has changed since the last call.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.receiver.try_iter()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
