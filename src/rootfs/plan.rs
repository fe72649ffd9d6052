//! What is mounted over the overlay, as data. Building a plan touches no kernel; [`super::apply`] executes
//! it and decides nothing; `--dry-run` prints [`MountPlan::describe`].
//!
//! Order matters: /dev and /run first, because binds may aim into them; user binds next; /proc last, so
//! that no symlink of a layer can lead a target through a magic link of /proc.

mod describe;
mod nest;
mod request;

use std::borrow::Cow;
use std::ffi::CStr;
use std::path::{Component, Path, PathBuf};

use super::account::{self, Entry};
use crate::fault::{Fault, Result, printable};

pub use nest::NEST;
pub use request::{Bind, BindMode, Memory, Request};

/// One step. Targets are absolute paths in the new root, without `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A fresh tmpfs.
    Tmpfs {
        /// Where.
        target: PathBuf,
        /// Mode bits of its root.
        mode: u32,
        /// Mount options that limit it; without, it may take half of the memory.
        limits: Option<Cow<'static, str>>,
        /// Whether programs on it may be started.
        exec: bool,
    },
    /// A new instance of devpts, its ptmx usable by all.
    Devpts {
        /// Where.
        target: PathBuf,
    },
    /// A directory in a tmpfs of ours.
    Directory {
        /// Where.
        target: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// An empty file in a tmpfs of ours.
    File {
        /// Where.
        target: PathBuf,
    },
    /// A small file of ours in a tmpfs of ours, for all to read.
    Note {
        /// Where.
        target: PathBuf,
        /// The content.
        content: &'static str,
    },
    /// A symbolic link in a tmpfs of ours.
    Symlink {
        /// Where.
        target: PathBuf,
        /// What it says.
        to: &'static str,
    },
    /// A device node of the host, bound onto a file in our /dev.
    Device {
        /// Its name beneath /dev, on both sides.
        name: &'static str,
    },
    /// A small file of ours, bound over what a layer has there.
    Text {
        /// Where.
        target: PathBuf,
        /// The content.
        content: String,
    },
    /// A copy of a file of accounts that a layer has, with a line more, bound over it, unless it has that id already.
    Account {
        /// Where.
        target: PathBuf,
        /// Who is added.
        entry: Entry,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host, or a place of the store.
        source: Source,
        /// Where.
        target: PathBuf,
        /// Without writes, in all mounts beneath it too.
        read_only: bool,
        /// Whether there is no run without it; not if nobody asked for it.
        required: bool,
    },
    /// A directory of the host under an upper of its own, which is dropped at the end.
    OverlayBind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// The directory of its upper and work, beneath the run's own.
        scratch: String,
    },
    /// A fresh /proc.
    Proc,
    /// Hides a file (by /dev/null) or a directory (by an empty read-only one), if it exists.
    Mask {
        /// Where, beneath /proc.
        target: PathBuf,
    },
    /// Makes a path read-only, if it exists.
    ReadOnly {
        /// Where, beneath /proc.
        target: PathBuf,
    },
}

/// Where a bind comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An absolute path of the host.
    Host(PathBuf),
    /// A path beneath base_dir: a cache of the box, the tree of a layer.
    Store(String),
    /// A path beneath the directory of the run.
    Run(&'static str),
}

/// The steps of one run, in order, and what the scaffold must hold for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPlan {
    /// The steps.
    pub ops: Vec<Op>,
}

/// Where the host says who answers names, and where it is said inside.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The variable by which apt finds a configuration of ours, which it reads before the tree's own (apt.conf(5)).
pub const APT_CONFIG: &CStr = c"APT_CONFIG=/run/sandbox-apt.conf";

/// The nodes of a minimal /dev.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links of /dev; `core` is left out on purpose (it would show /proc/kcore).
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// How much of the memory /dev with its shm, /run, and each of /tmp and /var/tmp in memory may take: all of them
/// together leave some, because the kernel can end no process to get that memory back. An entry without content takes
/// about a KiB that `size` does not count.
const DEV: &str = "size=10%,nr_inodes=64k";
const RUN: &str = "size=10%,nr_inodes=256k";
const TMP: &str = "size=25%,nr_inodes=1m";

/// Places where we mount a file system of our own: what a bind needs there is made in it.
pub(super) const FRESH: [&str; 2] = ["/dev", "/run"];

/// Makes the plan of a run.
///
/// # Errors
/// A usage fault for a target that is relative, has `..`, is `/`, or lies in /proc.
pub fn build(request: &Request) -> Result<MountPlan> {
    let mut ops = device_ops();
    ops.push(tmpfs("/run", 0o755, RUN, true));
    if request.tmp_in_memory {
        ops.push(tmpfs("/tmp", 0o1777, TMP, true));
        ops.push(tmpfs("/var/tmp", 0o1777, TMP, true));
    }
    ops.extend(network_ops(request));
    if request.apt_as_root {
        let (target, content) = ("/run/sandbox-apt.conf".into(), "APT::Sandbox::User \"root\";\n");
        ops.push(Op::Note { target, content });
    }
    if request.ordinary_user {
        ops.extend(account::ops());
    }
    for Memory { target, size, mode } in &request.tmpfs {
        check_target(target)?;
        make_place(&mut ops, target, true);
        let limits = size.map(|size| Cow::Owned(format!("size={size}")));
        ops.push(Op::Tmpfs { target: target.clone(), mode: *mode, limits, exec: true });
    }
    for (number, bind) in request.binds.iter().enumerate() {
        check_target(&bind.target)?;
        ops.extend(bind_ops(bind, number));
    }
    ops.push(Op::Proc);
    let wanted = |paths: &[PathBuf], needless: &[&str]| -> Vec<PathBuf> {
        let needed = |path: &&PathBuf| {
            request.host_root || !needless.iter().any(|one| *path == Path::new(one))
        };
        paths.iter().filter(needed).cloned().collect()
    };
    ops.extend(wanted(&request.masked, &UNREADABLE).into_iter().map(|target| Op::Mask { target }));
    ops.extend(
        wanted(&request.read_only, &UNWRITABLE).into_iter().map(|target| Op::ReadOnly { target }),
    );
    Ok(MountPlan { ops })
}

/// What only the host's root can read, or write, by its mode bits: to an id that is not the host's root,
/// hiding or protecting it would add nothing, and it costs two system calls and a mount each.
const UNREADABLE: [&str; 3] = ["/proc/kcore", "/proc/timer_list", "/proc/sysrq-trigger"];
const UNWRITABLE: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

fn device_ops() -> Vec<Op> {
    let mut ops = vec![tmpfs("/dev", 0o755, DEV, false)];
    ops.extend(DEVICES.map(|name| Op::Device { name }));
    ops.extend(LINKS.map(|(target, to)| Op::Symlink { target: target.into(), to }));
    ops.push(Op::Directory { target: "/dev/pts".into(), mode: 0o755 });
    ops.push(Op::Devpts { target: "/dev/pts".into() });
    ops.push(Op::Directory { target: "/dev/shm".into(), mode: 0o1777 });
    ops
}

fn tmpfs(target: &str, mode: u32, limits: &'static str, exec: bool) -> Op {
    Op::Tmpfs { target: target.into(), mode, limits: Some(Cow::Borrowed(limits)), exec }
}

fn network_ops(request: &Request) -> Vec<Op> {
    let name = &request.hostname;
    let mut hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n");
    hosts.extend(request.hosts.iter().map(|(name, address)| format!("{address}\t{name}\n")));
    let mut ops = vec![
        Op::Text { target: "/etc/hosts".into(), content: hosts },
        Op::Text { target: "/etc/hostname".into(), content: format!("{name}\n") },
    ];
    if let Some(content) = &request.resolver {
        ops.push(Op::Text { target: "/etc/resolv.conf".into(), content: content.clone() });
    }
    if request.host_network {
        ops.push(Op::Bind {
            source: Source::Host(RESOLV_CONF.into()),
            target: RESOLV_CONF.into(),
            read_only: true,
            required: false,
        });
    }
    ops
}

fn bind_ops(bind: &Bind, number: usize) -> Vec<Op> {
    let target = bind.target.clone();
    let mut ops = Vec::new();
    // A file is bound onto a file: which of the two it is, the scaffold knows (it asked the source).
    match (&bind.mode, &bind.source) {
        (BindMode::Overlay, Source::Host(source)) => ops.push(Op::OverlayBind {
            source: source.clone(),
            target,
            scratch: format!("work/bind{number}"),
        }),
        (mode, source) => ops.push(Op::Bind {
            source: source.clone(),
            target,
            read_only: *mode == BindMode::ReadOnly,
            required: true,
        }),
    }
    ops
}

/// Adds the directories that a place in a fresh tmpfs needs.
fn make_place(ops: &mut Vec<Op>, target: &Path, directory: bool) {
    let Some(root) = FRESH.iter().find(|root| target.starts_with(root)) else { return };
    let mut parents: Vec<&Path> = target
        .ancestors()
        .skip(usize::from(!directory))
        .take_while(|path| *path != Path::new(root))
        .collect();
    parents.reverse();
    ops.extend(
        parents.iter().map(|path| Op::Directory { target: path.to_path_buf(), mode: 0o755 }),
    );
    if !directory {
        ops.push(Op::File { target: target.to_path_buf() });
    }
}

fn check_target(target: &Path) -> Result<()> {
    let shown = printable(&target.to_string_lossy());
    let bad = |why: &str| Err(Fault::usage(format!("mount target: {shown}: {why}")));
    if !target.is_absolute() {
        return bad("not an absolute path");
    }
    if target.components().any(|part| part == Component::ParentDir) {
        return bad("has `..`");
    }
    if target == Path::new("/") {
        return bad("the root itself cannot be covered");
    }
    if target.starts_with("/proc") {
        return bad("/proc is the sandbox's own");
    }
    Ok(())
}

impl MountPlan {
    /// Adds what binds into /dev or /run need there; `is_directory` answers for a bind's source.
    pub fn make_places(&mut self, is_directory: impl Fn(&Source) -> bool) {
        let mut ops = Vec::with_capacity(self.ops.len());
        for op in self.ops.drain(..) {
            match &op {
                Op::Bind { source, target, .. } => {
                    make_place(&mut ops, target, is_directory(source));
                }
                Op::OverlayBind { target, .. } => make_place(&mut ops, target, true),
                _ => {}
            }
            ops.push(op);
        }
        self.ops = ops;
    }

    /// The places that must exist in the root for this plan, and whether each is a directory.
    pub fn places(&self, is_directory: impl Fn(&Source) -> bool) -> Vec<(PathBuf, bool)> {
        let mut places: Vec<(PathBuf, bool)> = vec![("/proc".into(), true)];
        for op in &self.ops {
            let (target, directory) = match op {
                Op::Tmpfs { target, .. } | Op::OverlayBind { target, .. } => (target, true),
                Op::Bind { source, target, .. } => (target, is_directory(source)),
                Op::Text { target, .. } | Op::Account { target, .. } => (target, false),
                _ => continue,
            };
            let fresh =
                FRESH.iter().any(|root| target.starts_with(root) && target != Path::new(root));
            if !fresh {
                places.push((target.clone(), directory));
            }
        }
        places.sort();
        places.dedup();
        places
    }

    /// One line a step, for `--dry-run` and for messages.
    pub fn describe(&self) -> Vec<String> {
        self.ops.iter().map(Op::describe).collect()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
