//! Container logs, copied while they are there: the kubelet deletes them with the pod, and they are wanted when something was found.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use e2e::{Error, Lab, Result};

use crate::follow::Lines;

/// Logs of the pods of some namespaces.
pub struct Archive {
    folder: PathBuf,
    namespaces: Vec<String>,
    followed: BTreeMap<PathBuf, Lines>,
    panics: Vec<String>,
}

impl Archive {
    /// Into a folder.
    pub fn into(folder: PathBuf, namespaces: &[&str]) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        Ok(Self {
            folder,
            namespaces: namespaces.iter().map(|name| format!("{name}_")).collect(),
            followed: BTreeMap::new(),
            panics: Vec::new(),
        })
    }

    /// Copies what is new on the disks of all nodes.
    pub fn copy(&mut self, lab: &Lab) -> Result<()> {
        let layout = lab.bed().layout();
        for node in lab.bed().nodes() {
            let pods = layout.disk(node.id()).join("log/pods");
            for log in self.logs(&pods) {
                let lines = self
                    .followed
                    .entry(log.clone())
                    .or_insert_with(|| Lines::of(log.clone()));
                let fresh = lines.fresh()?;
                if !fresh.is_empty() {
                    self.append(&pods, &log, &fresh)?;
                }
            }
        }
        Ok(())
    }

    /// `NAMESPACE_POD_UID/CONTAINER/N.log`. What goes while it is looked at is gone.
    fn logs(&self, pods: &Path) -> Vec<PathBuf> {
        let entries = |folder: &Path| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
        };
        let wanted = |pod: &PathBuf| {
            let name = pod.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            self.namespaces.iter().any(|namespace| name.starts_with(namespace))
        };
        entries(pods)
            .filter(wanted)
            .flat_map(|pod| entries(&pod).collect::<Vec<_>>())
            .flat_map(|container| entries(&container).collect::<Vec<_>>())
            .collect()
    }

    fn append(&mut self, pods: &Path, log: &Path, lines: &[String]) -> Result<()> {
        let name = log
            .strip_prefix(pods)
            .unwrap_or(log)
            .display()
            .to_string()
            .replace('/', "_");
        let path = self.folder.join(&name);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file("open", &path))?;
        for line in lines {
            if line.contains("panicked at") {
                self.panics.push(format!("{name}: {line}"));
            }
            writeln!(file, "{line}").map_err(Error::file("write", &path))?;
        }
        Ok(())
    }

    /// What a program of ours said when it failed in a way that it should not; each once.
    pub fn panics(&mut self) -> Vec<String> {
        std::mem::take(&mut self.panics)
    }
}
