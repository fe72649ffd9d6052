//! `--disk`: measures the upper while the run goes on, and ends it when it has grown too large.
//!
//! There is no quota for who is not root of the machine, so this is a watcher: it walks the upper, inside, as
//! often as costs little, and at once when the file system has lost so much room that it could have been us.
//! What is deleted and still open it does not see. How large the upper is in the end is measured once more.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fstatvfs, openat};
use rustix::io::Errno;

use super::companion::{Companion, OVER, close_but};
use super::outcome::Reason;
use super::spec::RunSpec;
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::tree::usage;

/// How often the room of the file system is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Between two walks, at least and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// A pause is so many times as long as the walk before it: 5 % of one processor.
const SHARE: u32 = 20;

/// Starts the watcher of a run whose directory is there; none if the spec has no limit.
///
/// # Errors
/// As [`ids::beside`].
pub(super) fn watch(spec: &RunSpec, store: BorrowedFd<'_>) -> Result<Option<Companion>> {
    let Some(limit) = spec.disk_limit else { return Ok(None) };
    let upper = openat(store, format!("{}/layer/fs", spec.run_dir), FLAGS, Mode::empty())
        .context("open", "the upper of the run")?;
    let pidfd = ids::beside(Entry::Map(&spec.id_map), Powers::Files, || {
        close_but(vec![upper.as_raw_fd()]);
        watching(upper.as_fd(), limit)
    })?;
    Ok(Some(Companion::known(Reason::Disk, pidfd)))
}

const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The bytes that an upper takes on disk.
///
/// # Errors
/// What the system says.
pub fn size(upper: BorrowedFd<'_>) -> Result<u64> {
    let usage = usage::usage(upper)?;
    Ok(usage.bytes + usage.linked.values().map(|linked| linked.bytes).sum::<u64>())
}

/// The same from outside.
///
/// # Errors
/// As [`ids::inside`].
pub fn size_of(run_dir: BorrowedFd<'_>, map: &IdMap) -> Result<u64> {
    let upper = openat(run_dir, "layer/fs", FLAGS, Mode::empty())
        .context("open", "the upper of the run")?;
    ids::inside(Entry::Map(map), Powers::Files, || size(upper.as_fd()))
}

fn watching(upper: BorrowedFd<'_>, limit: u64) -> i32 {
    loop {
        let begun = Instant::now();
        let before = room(upper);
        // A tree that changes while it is walked may fail to be: then again, soon.
        let used = size(upper).unwrap_or(0);
        if used > limit {
            return OVER;
        }
        let pause = (begun.elapsed() * SHARE).clamp(PAUSE[0], PAUSE[1]);
        let rest = Instant::now();
        while rest.elapsed() < pause {
            std::thread::sleep(TICK);
            let lost = before.saturating_sub(room(upper));
            if rest.elapsed() >= PAUSE[0] && lost > limit - used {
                break;
            }
        }
    }
}

/// What the file system has left, bytes.
fn room(upper: BorrowedFd<'_>) -> u64 {
    let room: std::result::Result<_, Errno> = fstatvfs(upper);
    room.map_or(0, |room| room.f_bfree.saturating_mul(room.f_frsize))
}
