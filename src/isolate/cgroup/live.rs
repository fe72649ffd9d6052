//! The cgroup of a run, from its making to its end.
//!
//! It is named `sandbox-RUN` and flocked by whoever has made it: one that is empty and that nobody has
//! locked was left by a supervisor that was killed, and goes when the next one is made beside it. So does the
//! leaf that such a supervisor had stepped into, `sandbox-supervisor-PID`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, open, openat, statat};
use rustix::io::Errno;

use super::{Place, Wanted};
use crate::fault::{Context, Fault, Result};

/// How the names of ours begin.
const PREFIX: &str = "sandbox-r-";
/// How the names of the leaves begin.
const LEAF: &str = "sandbox-supervisor-";
/// The span that `cpu.max` counts in, microseconds.
const PERIOD: u64 = 100_000;
/// How long the kernel may take to let go of processes that were killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cgroup of one run. When it is dropped, all that is left in it is killed, and it is removed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
    /// What we stepped out of, with what was turned on there.
    left: Option<Leaf>,
}

/// What the kernel did because of the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Events {
    /// Processes that were killed because there was no memory left.
    pub oom_kills: u64,
    /// Processes and threads that were refused.
    pub pids_refused: u64,
}

impl Cgroup {
    /// Makes the cgroup of a run, empty, with its limits.
    ///
    /// # Errors
    /// A host fault if the place that was found does not keep what it promised.
    pub fn make(place: &Place, run: &str, wanted: &Wanted) -> Result<Self> {
        let shown = place.parent.display();
        // First, because a leaf may be left of a process whose id is ours now.
        sweep(&place.parent);
        let left = match place.leaf {
            true => Some(Leaf::enter(&place.parent)?),
            false => None,
        };
        if !place.enable.is_empty() {
            let turn = turn(&place.enable, '+');
            let done = write(&place.parent, "cgroup.subtree_control", &turn);
            done.context("turn on the controllers of cgroup", shown).map_err(host)?;
        }
        let left = left.map(|leaf| Leaf { enabled: place.enable.clone(), ..leaf });
        let path = place.parent.join(format!("{PREFIX}{}", run.trim_start_matches("r-")));
        let dir = create(&path).context("make cgroup", path.display()).map_err(host)?;
        let cgroup = Self { path, dir, left };
        cgroup.limit(place, wanted)?;
        Ok(cgroup)
    }

    fn limit(&self, place: &Place, wanted: &Wanted) -> Result<()> {
        let set = |file: &str, value: String| {
            let name = self.path.join(file);
            write(&self.path, file, &value).context("set the limit", name.display()).map_err(host)
        };
        if let Some(bytes) = wanted.memory.filter(|_| place.has("memory")) {
            set("memory.max", bytes.to_string())?;
            // Else what does not fit would go to swap. A kernel without swap has no such file.
            if self.path.join("memory.swap.max").exists() {
                set("memory.swap.max", "0".to_owned())?;
            }
        }
        if let Some(pids) = wanted.pids.filter(|_| place.has("pids")) {
            // PID 1 is ours, not the command's.
            set("pids.max", pids.saturating_add(1).to_string())?;
        }
        if let Some(quota) = wanted.cpu_quota.filter(|_| place.has("cpu")) {
            set("cpu.max", format!("{quota} {PERIOD}"))?;
        }
        Ok(())
    }

    /// The directory, to be cloned into.
    ///
    /// # Errors
    /// EMFILE.
    pub fn entrance(&self) -> Result<Entrance> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let shown = self.path.display();
        Ok(Entrance {
            dir: self.dir.try_clone().context("open cgroup", &shown)?,
            procs: openat(&self.dir, "cgroup.procs", flags, Mode::empty())
                .context("open cgroup", shown)?,
        })
    }

    /// What has happened so far.
    pub fn events(&self) -> Events {
        events(&self.dir)
    }

    fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.path.join("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
    }
}

/// The way into a cgroup for the child of a run.
#[derive(Debug)]
pub struct Entrance {
    /// For clone3(2) with CLONE_INTO_CGROUP.
    pub dir: OwnedFd,
    procs: OwnedFd,
}

impl Entrance {
    /// Moves the calling process into the cgroup. One system call.
    ///
    /// # Errors
    /// What the kernel says: EACCES, EBUSY, ENOENT.
    pub fn enter(&self) -> std::result::Result<(), Errno> {
        rustix::io::write(&self.procs, b"0").map(drop)
    }
}

impl Entrance {
    /// What has happened so far.
    pub fn events(&self) -> Events {
        events(&self.dir)
    }
}

/// Moves the calling process into a cgroup by its directory.
///
/// # Errors
/// What the kernel says: EACCES if no cgroup that both are in may be written to; ENODEV if it is gone.
pub fn enter(cgroup: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    let procs = openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(procs, b"0").map(drop)
}

/// Whether a cgroup has all the processes and threads that it may have.
pub fn is_full(cgroup: BorrowedFd<'_>) -> bool {
    let number = |file| contents(cgroup, file).trim().parse::<u64>().ok();
    // None: `max`.
    number("pids.max").is_some_and(|max| number("pids.current").is_some_and(|now| now >= max))
}

/// A file of a cgroup; empty if it cannot be read.
fn contents(cgroup: BorrowedFd<'_>, file: &str) -> String {
    let mut text = String::new();
    let opened = openat(cgroup, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match opened.map(|file| File::from(file).read_to_string(&mut text)) {
        Ok(Ok(_)) => text,
        _ => String::new(),
    }
}

fn events(cgroup: &OwnedFd) -> Events {
    let count = |file: &str, word: &str| {
        contents(cgroup.as_fd(), file)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(name, number)| (name == word).then(|| number.parse().ok())?)
            .unwrap_or_default()
    };
    Events {
        oom_kills: count("memory.events", "oom_kill"),
        pids_refused: count("pids.events", "max"),
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Since Linux 5.14. The pid namespace has taken all with it already; this is for what joined it.
        write(&self.path, "cgroup.kill", "1").ok();
        let begun = Instant::now();
        while self.is_populated() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What cannot be removed now is removed by a later run.
        fs::remove_dir(&self.path).ok();
        if let Some(leaf) = self.left.take() {
            leaf.leave();
        }
    }
}

/// Our own place beneath a cgroup that we were alone in.
#[derive(Debug)]
struct Leaf {
    parent: PathBuf,
    path: PathBuf,
    enabled: Vec<&'static str>,
    /// Its lock.
    _dir: OwnedFd,
}

impl Leaf {
    fn enter(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("{LEAF}{}", std::process::id()));
        let dir = create(&path).context("make cgroup", path.display()).map_err(host)?;
        let leaf = Self { parent: parent.to_owned(), path, enabled: Vec::new(), _dir: dir };
        if let Err(errno) = write(&leaf.path, "cgroup.procs", "0") {
            fs::remove_dir(&leaf.path).ok();
            return Err(host(Fault::errno("move to cgroup", leaf.path.display(), errno)));
        }
        Ok(leaf)
    }

    /// Everything as it was, so that others can come into that cgroup again.
    fn leave(self) {
        write(&self.parent, "cgroup.subtree_control", &turn(&self.enabled, '-')).ok();
        if write(&self.parent, "cgroup.procs", "0").is_ok() {
            fs::remove_dir(&self.path).ok();
        }
    }
}

fn turn(controllers: &[&str], sign: char) -> String {
    let words: Vec<_> = controllers.iter().map(|name| format!("{sign}{name}")).collect();
    words.join(" ")
}

fn write(cgroup: &Path, file: &str, text: &str) -> std::result::Result<(), Errno> {
    let opened = File::options().write(true).open(cgroup.join(file));
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn host(fault: Fault) -> Fault {
    Fault { kind: crate::fault::Kind::Host, ..fault }
        .hint("leave out --memory, --pids and --cpus; `sandbox doctor` tells what this host allows")
}

/// A new directory of this name, locked. Between its making and its locking another supervisor may take it
/// for a left-over.
fn create(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    loop {
        fs::create_dir(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if let Some(dir) = lock(path) {
            return Ok(dir);
        }
    }
}

/// Opens and locks a cgroup; none if somebody else has it, or it is gone.
fn lock(path: &Path) -> Option<OwnedFd> {
    let dir =
        open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive).ok()?;
    let (held, there) =
        (fstat(&dir).ok()?, statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?);
    (held.st_ino == there.st_ino).then_some(dir)
}

/// Removes what killed supervisors left beside us. Nobody is killed in a leaf: the supervisor of an older version,
/// which has no lock, may live there, and the kernel removes no cgroup that has a process.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let begins = |with| entry.file_name().to_str().is_some_and(|name| name.starts_with(with));
        let run = begins(PREFIX);
        if (run || begins(LEAF))
            && let Some(_held) = lock(&entry.path())
        {
            if run {
                write(&entry.path(), "cgroup.kill", "1").ok();
            }
            fs::remove_dir(entry.path()).ok();
        }
    }
}
