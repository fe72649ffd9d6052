//! `--disk`: measures the upper while the run goes on, with those of overlay binds and the store inside it if there is one,
//! and ends it when they have grown too large.
//!
//! There is no quota for who is not root of the machine, so this is a watcher: it walks the upper, inside, as
//! often as costs little, and at once when the file system has lost so much room that it could have been us.
//! What is deleted and still open somebody else sees for it. How large the upper is in the end is measured once more.

mod open;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fstatvfs, openat};
use rustix::io::Errno;
use rustix::path::Arg;
use rustix::process::Pid;

use self::open::Asked;
use super::companion::{Companion, OVER, close_but};
use super::outcome::Reason;
use super::spec::{RunSpec, Upper};
use crate::fault::{Context, Result};
use crate::ids::{self, Entry, IdMap, Powers};
use crate::tree::dir::Names;
use crate::tree::usage::{filled, up_to};

/// How often the room of the file system is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Between two walks, at least and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// A pause is so many times as long as the walk before it: 5 % of one processor.
const SHARE: u32 = 20;

/// Starts the watcher of a run whose directory is there and whose first process is `init`, and who helps it; none if the spec
/// has no limit.
///
/// # Errors
/// As [`ids::beside`].
pub(super) fn watch(spec: &RunSpec, store: BorrowedFd<'_>, init: Pid) -> Result<Vec<Companion>> {
    let Some(limit) = spec.disk_limit else { return Ok(Vec::new()) };
    let run_dir = openat(store, &spec.run_dir, FLAGS, Mode::empty()).context("open", "the run")?;
    // The command has not begun: what a store inside has now, it was lent.
    let lent = size_of_nest(run_dir.as_fd(), &spec.id_map)?;
    let trees = Trees::open(run_dir.as_fd())?;
    let (mut asked, companion) = match spec.upper {
        Upper::Disk => Asked::start(init)?,
        Upper::Tmpfs(_) => (Asked::nobody(), None),
    };
    let pidfd = ids::beside(Entry::Map(&spec.id_map), Powers::Files, || {
        let places = trees.places().map(|dir| dir.as_raw_fd());
        close_but(places.chain(asked.descriptor()).collect());
        watching(&trees, &mut asked, limit.saturating_add(lent))
    })?;
    Ok(companion.into_iter().chain([Companion::known(Reason::Disk, pidfd)]).collect())
}

const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a run writes. Only as places outside, where what is in them may belong to others.
struct Trees {
    /// Of the root. None if that was left empty and is taken away.
    upper: Option<OwnedFd>,
    /// The store inside it, if it has one.
    nest: Option<OwnedFd>,
    /// What the uppers of overlay binds are in, once these are mounted.
    work: Option<OwnedFd>,
}

impl Trees {
    fn open(run_dir: BorrowedFd<'_>) -> Result<Self> {
        let open = |name| place(run_dir, name).context("open", format_args!("{name} of the run"));
        Ok(Self { upper: open("layer/fs")?, nest: open("nest")?, work: open("work")? })
    }

    /// What is open outside.
    fn places(&self) -> impl Iterator<Item = &OwnedFd> {
        self.upper.iter().chain(&self.nest).chain(&self.work)
    }

    fn binds(&self) -> Result<Vec<OwnedFd>, Errno> {
        self.work.as_ref().map_or(Ok(Vec::new()), |work| binds(work.as_fd()))
    }

    /// The bytes that they take on disk.
    fn size(&self) -> Result<u64> {
        let binds = self.binds().context("open", "the uppers of the run")?;
        self.upper.iter().chain(&self.nest).chain(&binds).map(|dir| filled(dir.as_fd())).sum()
    }

    /// The same, until it is more than `limit`; and whether it is all of it.
    fn up_to(&self, limit: u64) -> (u64, bool) {
        let (binds, whole) = self.binds().map_or((Vec::new(), false), |binds| (binds, true));
        let all = self.upper.iter().chain(&self.nest).chain(&binds);
        all.fold((0, whole), |(sum, whole), dir| {
            let (seen, all) = up_to(dir.as_fd(), limit);
            (sum + seen, whole && all)
        })
    }

    /// What the file system has left, bytes.
    fn room(&self) -> u64 {
        let room = self.places().next().and_then(|place| fstatvfs(place).ok());
        room.map_or(0, |room| room.f_bfree.saturating_mul(room.f_frsize))
    }
}

/// A directory as a place, if there is one.
fn place(dir: BorrowedFd<'_>, name: impl Arg) -> Result<Option<OwnedFd>, Errno> {
    match openat(dir, name, FLAGS.union(OFlags::PATH), Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some),
    }
}

/// The uppers of overlay binds, as a plan names them.
fn binds(work: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let names = Names::read(openat(work, ".", FLAGS, Mode::empty())?.as_fd())?;
    let names = names.iter().map(|(name, _)| name.to_bytes());
    names
        .filter(|name| name.starts_with(b"bind"))
        .filter_map(|name| place(work, Path::new(OsStr::from_bytes(name)).join("fs")).transpose())
        .collect()
}

/// The bytes that the store inside a run takes on disk; 0 where there is none.
///
/// # Errors
/// As [`ids::inside`].
pub fn size_of_nest(run_dir: BorrowedFd<'_>, map: &IdMap) -> Result<u64> {
    match place(run_dir, "nest").context("open", "the inner store of the run")? {
        Some(nest) => ids::inside(Entry::Map(map), Powers::Files, || filled(nest.as_fd())),
        None => Ok(0),
    }
}

/// The bytes on disk of all that a run has written, the store inside included.
///
/// # Errors
/// As [`ids::inside`].
pub fn size_of(run_dir: BorrowedFd<'_>, map: &IdMap) -> Result<u64> {
    let trees = Trees::open(run_dir)?;
    ids::inside(Entry::Map(map), Powers::Files, || trees.size())
}

fn watching(trees: &Trees, asked: &mut Asked, limit: u64) -> i32 {
    let mut used = 0;
    let mut measure = || {
        let (seen, whole) = trees.up_to(limit);
        (seen.saturating_add(asked.bytes()), whole)
    };
    loop {
        let begun = Instant::now();
        let before = trees.room();
        let (seen, whole) = measure();
        // A file that is moved or deleted meanwhile may be seen twice: hardly again.
        if seen > limit && measure().0 > limit {
            return OVER;
        }
        let seen = seen.min(limit);
        // A walk that a change has ended has not seen all.
        used = if whole { seen } else { seen.max(used) };
        let pause = (begun.elapsed() * SHARE).clamp(PAUSE[0], PAUSE[1]);
        let rest = Instant::now();
        while rest.elapsed() < pause {
            std::thread::sleep(TICK);
            let lost = before.saturating_sub(trees.room());
            if rest.elapsed() >= PAUSE[0] && lost > limit - used {
                break;
            }
        }
    }
}
