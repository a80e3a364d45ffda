//! The programs a cluster consists of, and the images made of them.
//!
//! Built by tools/build.sh, once; a newcomer's first `up` waits for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    error::{Error, Result},
    image::{Entry, Image},
    layout::Layout,
    node::config,
    process::{command, run, sh},
};

/// The load balancer's module, which also brings its manifests.
const BALANCER_MODULE: &str = "go.universe.tf/metallb";

/// The folder of the build scripts. Known at compile time, and movable with the checkout by a variable.
pub fn tools_folder() -> PathBuf {
    std::env::var_os("SQLEDGE_TOOLS").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tools"), PathBuf::from)
}

/// Builds what is not built yet. Prints progress when there is something to do.
pub fn build(storage: bool) -> Result<()> {
    run_shown(command([tools_folder().join("build.sh").as_os_str()]))?;
    if storage {
        let script = tools_folder().join("build-storage.sh");
        run_shown(command([script.as_os_str()]))?;
    }
    Ok(())
}

fn run_shown(mut script: std::process::Command) -> Result<()> {
    // its progress goes to the terminal; its result, a list of folders, does not
    let shown = script.get_program().to_string_lossy().into_owned();
    let status = script
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|source| Error::Start {
            command: shown.clone(),
            source,
        })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: shown,
        status: status.to_string(),
        output: "its messages stand above".to_owned(),
    })
}

/// The load balancer's own manifest, from the module that its programs were built from.
pub fn balancer_manifest() -> Result<String> {
    let folder = tools_folder().join("metallb");
    let find = || run(command(["go", "list", "-m", "-f", "{{.Dir}}", BALANCER_MODULE]).current_dir(&folder));
    let mut found = find()?;
    if found.trim().is_empty() {
        run(command(["go", "mod", "download", BALANCER_MODULE]).current_dir(&folder))?;
        found = find()?;
    }
    let manifest = Path::new(found.trim()).join("config/manifests/metallb-native.yaml");
    fs::read_to_string(&manifest).map_err(Error::file("read", manifest))
}

/// The archives every node gets, written where they are missing.
pub fn image_archives(layout: &Layout, storage: bool) -> Result<Vec<PathBuf>> {
    let mut images = vec![pause(), busybox()?, balancer(layout)?];
    if storage {
        images.push(test_storage(layout)?);
    }
    images.iter().map(|image| image.write_into(&layout.images())).collect()
}

fn busybox_program() -> PathBuf {
    PathBuf::from("/bin/busybox")
}

fn pause() -> Image {
    Image {
        reference: config::PAUSE_IMAGE.to_owned(),
        entries: vec![Entry::program("/bin/busybox", busybox_program())],
        entrypoint: ["/bin/busybox", "sleep", "2147483647"].map(str::to_owned).to_vec(),
        ..Image::default()
    }
}

fn busybox() -> Result<Image> {
    let applets = sh([busybox_program().as_os_str(), "--list".as_ref()])?;
    let mut entries = base_entries();
    entries.push(Entry::program("/bin/busybox", busybox_program()));
    entries.extend(
        applets
            .lines()
            .filter(|a| *a != "busybox")
            .map(|a| Entry::link(&format!("/bin/{a}"), "/bin/busybox")),
    );
    Ok(Image {
        reference: "localhost/busybox:1".to_owned(),
        entries,
        command: vec!["/bin/sh".to_owned()],
        environment: vec!["PATH=/bin".to_owned()],
        ..Image::default()
    })
}

/// What programs expect of any system.
pub fn base_entries() -> Vec<Entry> {
    vec![
        Entry::folder("/tmp", 0o1777, 0),
        Entry::text(
            "/etc/passwd",
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        Entry::text("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ]
}

fn balancer(layout: &Layout) -> Result<Image> {
    of_programs(
        layout,
        "localhost/metallb:dev",
        &["metallb-controller", "metallb-speaker"],
    )
}

fn test_storage(layout: &Layout) -> Result<Image> {
    of_programs(
        layout,
        "localhost/test-storage:dev",
        &["test-storage", "csi-attacher", "csi-provisioner", "csi-resizer"],
    )
}

fn of_programs(layout: &Layout, reference: &str, programs: &[&str]) -> Result<Image> {
    let mut entries = base_entries();
    for program in programs {
        let real = layout.tool(program);
        let real = fs::canonicalize(&real).map_err(Error::file("find", real))?;
        entries.push(Entry::program(&format!("/{program}"), real));
    }
    Ok(Image {
        reference: reference.to_owned(),
        entries,
        ..Image::default()
    })
}
