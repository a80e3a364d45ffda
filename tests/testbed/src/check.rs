//! What a machine must offer, looked at before anything is started, all of it at once.
//!
//! Kernel features are tried out where that leaves no trace, because their names in /proc appear only after first use.

use std::{fs, path::Path};

use crate::{
    cgroup::Cgroups,
    error::{Error, Result},
    process::sh,
};

/// Programs, and the Debian package that brings each.
const PROGRAMS: [(&str, &str); 26] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("curl", "curl"),
    ("nbdkit", "nbdkit"),
    ("nbdfuse", "libnbd-bin"),
    ("fusermount3", "fuse3"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("bash", "bash"),
    ("flock", "util-linux"),
    ("go", "golang (1.26 or newer, from its makers)"),
];

/// Looks at this machine. The error names everything that is missing.
pub fn machine(cache: &Path) -> Result<()> {
    let mut missing = Vec::new();
    missing.extend(missing_packages());
    if rustix::process::geteuid().is_root() {
        missing.extend(missing_kernel_features(cache));
    } else {
        missing.push(
            "root: namespaces and mounts need it (run with sudo; the kernel's features are then tried too)".to_owned(),
        );
    }
    missing.extend(missing_devices());
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing(missing))
    }
}

fn missing_packages() -> Vec<String> {
    let absent = PROGRAMS.iter().filter(|(program, _)| !is_on_path(program));
    let (programs, mut packages): (Vec<&str>, Vec<&str>) = absent.copied().unzip();
    let mut missing = Vec::new();
    if !Path::new("/usr/lib/cni/bridge").exists() {
        packages.push("containernetworking-plugins");
    }
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        missing.push(format!(
            "Debian packages: apt-get install --no-install-recommends {}{}",
            packages.join(" "),
            if programs.is_empty() {
                String::new()
            } else {
                format!("   (for {})", programs.join(", "))
            }
        ));
    }
    missing
}

fn is_on_path(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&paths)
        .chain(usual)
        .any(|folder| folder.join(program).exists())
}

fn missing_devices() -> Vec<String> {
    let absent = ["/dev/fuse", "/dev/loop-control"]
        .into_iter()
        .filter(|device| !Path::new(device).exists());
    absent
        .map(|device| format!("a kernel with FUSE and loop devices: {device} does not exist"))
        .collect()
}

fn missing_kernel_features(cache: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    let mut try_out = |what: &str, result: Result<String>| {
        if let Err(error) = result {
            missing.push(format!("{what}: {}", error.with_reasons().replace('\n', " ")));
        }
    };
    // a module that is built in, or loaded already, makes modprobe fail without harm
    for module in ["overlay", "fuse", "loop", "xfs", "nf_tables", "veth", "bridge"] {
        let _ = sh(["modprobe", module]);
    }
    let scratch = cache.join(format!(".check-{}", std::process::id()));
    let script = "set -e; mkdir -p lower upper work merged; mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged";
    if let Err(source) = fs::create_dir_all(&scratch) {
        try_out(
            "a cache folder",
            Err(Error::File {
                action: "create",
                path: scratch.clone(),
                source,
            }),
        );
    } else {
        let folder = scratch.display().to_string();
        let words = ["unshare", "--mount", "sh", "-c", &format!("cd '{folder}'; {script}")];
        try_out(
            "overlay file systems in the cache folder (set SQLEDGE_CACHE to one on an ordinary disk)",
            sh(words),
        );
        let _ = fs::remove_dir_all(&scratch);
    }
    let rules = "add table bridge t; add chain bridge t f { type filter hook forward priority 0; }; \
        add table ip n; add chain ip n p { type nat hook postrouting priority 100; }; add rule ip n p masquerade; \
        add rule ip n p numgen random mod 2 vmap { 0 : accept, 1 : accept }; add rule ip n p fib daddr type local accept";
    let nft = ["unshare", "--net", "nft", rules];
    try_out("nf_tables with bridge, nat, numgen and fib support", sh(nft));
    let network = "ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2";
    try_out(
        "network namespaces, bridges and veth pairs",
        sh(["unshare", "--net", "sh", "-c", network]),
    );
    let namespaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"];
    try_out("mount, uts, ipc and pid namespaces", sh(namespaces));
    match Cgroups::detect() {
        Err(error) => try_out("control groups", Err(error)),
        Ok(cgroups) => {
            let probe = std::path::PathBuf::from(format!("testbed-check-{}", std::process::id()));
            let result = cgroups
                .create(&probe)
                .and_then(|()| cgroups.remove(&probe))
                .map(|()| String::new());
            try_out("writable control groups", result);
        }
    }
    missing
}
