//! What the processes of a run hold open and have deleted: no walk of the upper finds it, and it takes room all the same.
//!
//! The watcher of the upper is in a user namespace of its own, where it may read every file and look into no process. So there is
//! another one that is asked, in that of the run: there it may look into all, whoever they are, and that is all it may; it is in no
//! other namespace of the run, where nobody sees it, and hidden from ptrace(2). It sees descriptors, but neither what is mapped
//! or under way in a socket only, nor what threads have that share them with nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_link, read_to_string};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statfs, statx};
use rustix::process::Pid;

use crate::fault::{Context, Result};
use crate::ids::{look_into, number_in_proc};
use crate::run::companion::{Companion, FINE};
use crate::run::launch::session::processes;
use crate::run::outcome::Reason;

/// Of an overlay, as statfs(2) says.
const OVERLAY: u64 = 0x794c_7630;
/// How long an answer may take: there may be a file system without its server among what is open.
const PATIENCE: Duration = Duration::from_secs(1);

/// One who tells how much it is.
pub(super) struct Asked(Option<UnixStream>);

impl Asked {
    /// Starts one who looks at the run whose first process is `init`, for somebody else to ask; nobody where /proc does not
    /// show it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(init: Pid) -> Result<(Self, Option<Companion>)> {
        let Ok(init) = number_in_proc(init) else { return Ok((Self::nobody(), None)) };
        let (ours, theirs) = UnixStream::pair().context("make a socket pair", "for the watcher")?;
        ours.set_read_timeout(Some(PATIENCE)).context("set a time-out", "for the watcher")?;
        // It waits for us, and can be looked at until it goes on; one that has but one id may have hidden already. Who has that
        // id, too, needs no more than to own the namespace, and goes without.
        let namespace = std::fs::File::open(format!("/proc/{init}/ns/user")).ok();
        let raw = namespace.as_ref().map(AsRawFd::as_raw_fd);
        let keep = raw.into_iter().chain([theirs.as_raw_fd()]).collect();
        let answering = || {
            if let Some(namespace) = namespace {
                look_into(namespace.as_fd()).ok();
            }
            answer(theirs, init)
        };
        let companion = Companion::start(Reason::Disk, keep, answering);
        Ok((Self(Some(ours)), Some(companion.context("make a process", "for the watcher")?)))
    }

    /// Who has nothing to tell.
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    /// What has to stay open to ask.
    pub(super) fn descriptor(&self) -> Option<i32> {
        self.0.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The bytes on disk; 0 if there is no answer, and then no more is asked.
    pub(super) fn bytes(&mut self) -> u64 {
        let Some(line) = &mut self.0 else { return 0 };
        let mut bytes = [0; 8];
        match line.write_all(b"?").and_then(|()| line.read_exact(&mut bytes)) {
            Ok(()) => u64::from_ne_bytes(bytes),
            Err(_) => {
                self.0 = None;
                0
            }
        }
    }
}

fn answer(mut line: UnixStream, init: i32) -> i32 {
    let mut seen = Seen::outside();
    let mut word = [0];
    while line.read_exact(&mut word).is_ok() {
        if line.write_all(&seen.bytes(init).to_ne_bytes()).is_err() {
            break;
        }
    }
    FINE
}

/// Which file systems count, by their devices.
struct Seen(BTreeMap<(u32, u32), bool>);

impl Seen {
    /// The overlays of the host do not, which may be bound into a run.
    fn outside() -> Self {
        let mounts = read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let device = |line: &str| {
            let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        Self(mounts.lines().filter_map(device).map(|device| (device, false)).collect())
    }

    /// The bytes of what is deleted on overlays that are the run's own, each file once.
    fn bytes(&mut self, init: i32) -> u64 {
        let mut files = BTreeMap::new();
        for pid in members(init) {
            let Ok(open) = read_dir(format!("/proc/{pid}/fd")) else { continue };
            for file in open.flatten() {
                let path = file.path();
                // What is not there any more, or not to be seen.
                let Ok(stat) = look(&path) else { continue };
                let deleted = stat.stx_nlink == 0
                    && FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
                let device = (stat.stx_dev_major, stat.stx_dev_minor);
                if deleted && self.counts(device, &path) {
                    files.insert((device, stat.stx_ino), stat.stx_blocks * 512);
                }
            }
        }
        files.values().sum()
    }

    fn counts(&mut self, device: (u32, u32), path: &Path) -> bool {
        let is_overlay = || statfs(path).is_ok_and(|found| found.f_type as u64 == OVERLAY);
        *self.0.entry(device).or_insert_with(is_overlay)
    }
}

/// Asks no server for it.
fn look(path: &Path) -> rustix::io::Result<rustix::fs::Statx> {
    let what = StatxFlags::TYPE | StatxFlags::NLINK | StatxFlags::INO | StatxFlags::BLOCKS;
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, what)
}

/// The processes of a run: what its first one has for descendants, and who has joined one of their pid namespaces from outside.
fn members(init: i32) -> BTreeSet<i32> {
    let all: Vec<_> = processes()
        .into_iter()
        .map(|(pid, stat)| (pid.as_raw_nonzero().get(), stat.parent))
        .collect();
    let namespace = |pid: i32| read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut members = BTreeSet::from([init]);
    grow(&mut members, &all);
    let theirs: BTreeSet<_> = members.iter().filter_map(|pid| namespace(*pid)).collect();
    let joined =
        all.iter().filter(|(pid, _)| namespace(*pid).is_some_and(|one| theirs.contains(&one)));
    let joined: Vec<_> = joined.map(|(pid, _)| *pid).collect();
    members.extend(joined);
    grow(&mut members, &all);
    members
}

/// Adds the children of all, until there are none.
fn grow(members: &mut BTreeSet<i32>, all: &[(i32, i32)]) {
    loop {
        let before = members.len();
        for (pid, parent) in all {
            if members.contains(parent) {
                members.insert(*pid);
            }
        }
        if members.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_in_any_order() {
        let mut members = BTreeSet::from([5]);
        grow(&mut members, &[(2, 9), (9, 5), (7, 1), (3, 2)]);
        assert_eq!(members, BTreeSet::from([2, 3, 5, 9]));
    }
}
