//! What is thrown away, and who empties it.
//!
//! The content of layers and uppers is removed inside the user namespace that made it, the directories
//! around it outside. Boxes may have different maps, and an entry of the trash does not say whose it was:
//! each map is tried, and what is not its own stays for the next one. An `init` that failed or was killed
//! leaves files of a map that no box has; so the other maps that this user can have come after the boxes'.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Mode as Permissions, OFlags, open};
use rustix::io::Errno;
use rustix::process::{WaitOptions, chdir, setsid, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::fault::{Context, Fault, Result};
use crate::ids::{self, Entry, IdMap, Mode as IdMode, Powers};
use crate::store::{Store, Trash};
use crate::sys::detach::{idle_priority, release_all_but_directories};
use crate::sys::process::{Side, clone, exit_now};
use crate::tree::remove_tree;

/// How often to look whether another remover is done.
const PATIENCE: Duration = Duration::from_millis(20);

/// What every command does at its end: takes what killed runs have left to the trash, and starts one
/// detached remover if there is trash that nobody empties. With `wait` it sees the trash emptied itself.
///
/// # Errors
/// What reading the store or making the process says; the command itself has done its work by then.
pub fn tidy(store: &Store, wait: bool) -> Result<()> {
    store.reap()?;
    if wait {
        return empty(store).map(drop);
    }
    // Our hold of the trash ends here; of two removers that start at once one finds it taken, and ends.
    match next(store, &mut Swept::default())? {
        Some(trash) => drop(trash),
        None => return Ok(()),
    }
    in_background(store, || {
        // Nobody is there to be told of a failure; what stays is found by the next command.
        sweep(store).ok();
    })
}

/// The first half of [`tidy`]: takes what killed runs have left to the trash, and says whether there is any trash.
///
/// # Errors
/// As [`tidy`].
pub fn is_tidy(store: &Store) -> Result<bool> {
    store.reap()?;
    Ok(store.trash_pending()? == 0)
}

/// Empties the trash here and now, and says how many bytes on disk are free again. Waits for a remover that is
/// at work.
///
/// # Errors
/// The last failure, if anything stays.
pub fn empty(store: &Store) -> Result<u64> {
    let mut freed = 0;
    loop {
        let before = store.trash_names()?;
        let swept = sweep(store)?;
        freed += swept.freed;
        let left = store.trash_names()?;
        if left.is_empty() {
            return Ok(freed);
        }
        match store.trash()? {
            // It was ours alone to empty, with every map there is, and did not go.
            Some(_) if !swept.others && left.iter().any(|name| before.contains(name)) => {
                return swept.fault.map_or(Ok(freed), Err);
            }
            // It has come meanwhile, perhaps when the map it wants had had its turn.
            Some(_) => {}
            None => sleep(PATIENCE),
        }
    }
}

/// What came of trying every map.
#[derive(Debug, Default)]
struct Swept {
    /// Bytes on disk.
    freed: u64,
    /// The last failure.
    fault: Option<Fault>,
    /// Whether somebody else had the trash when it was a map's turn: then that map was not tried.
    others: bool,
}

/// Removes what can be removed.
fn sweep(store: &Store) -> Result<Swept> {
    let mut swept = Swept::default();
    for map in maps(store)? {
        if store.trash_pending()? == 0 {
            break;
        }
        while let Some(trash) = next(store, &mut swept)? {
            let emptied = ids::inside(Entry::Map(&map), Powers::Files, || {
                let mut bytes = 0;
                let fault = trash.empty(&mut |dir, name| remove(dir, name, &mut bytes)).err();
                Ok((bytes, fault))
            });
            match emptied {
                Ok((bytes, fault)) => {
                    swept.freed += bytes;
                    swept.fault = fault;
                }
                Err(fault) => swept.fault = Some(fault),
            }
            let emptied = trash.finish()?;
            swept.freed += emptied.bytes;
            if emptied.entries == 0 {
                break;
            }
        }
    }
    Ok(swept)
}

/// The next part of the trash whose content needs a user namespace; what needs none is removed on the way.
/// `swept` knows of that then, and whether somebody else has it.
fn next(store: &Store, swept: &mut Swept) -> Result<Option<Trash>> {
    while let Some(trash) = store.trash()? {
        if !trash.is_ours() {
            return Ok(Some(trash));
        }
        let emptied = trash.finish()?;
        swept.freed += emptied.bytes;
        if emptied.entries == 0 {
            return Ok(None);
        }
    }
    swept.others |= store.trash_pending()? > 0;
    Ok(None)
}

/// Does `job` in a process of its own that nobody waits for, at the lowest priority. It enters the user
/// namespace only for what needs it, because in `range` mode the directories around are not inside root's.
fn in_background(store: &Store, job: impl FnOnce()) -> Result<()> {
    match clone(0).context("make a process", "for the trash")? {
        Side::Parent { child, .. } => {
            waitpid(Some(child), WaitOptions::empty()).context("wait for", "a process")?;
            Ok(())
        }
        // The middle one ends at once, so that the worker is nobody's child here.
        Side::Child => {
            // Never back into the frames of the command, also not by a panic.
            catch_unwind(AssertUnwindSafe(|| {
                if setsid().is_ok() && matches!(clone(0), Ok(Side::Child)) && alone(store).is_ok() {
                    job();
                }
            }))
            .ok();
            exit_now(0)
        }
    }
}

/// Lets go of all that somebody may wait for: terminal, pipes, locks, the working directory.
fn alone(store: &Store) -> Result<(), Errno> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Permissions::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    chdir("/")?;
    release_all_but_directories(store.dir())?;
    idle_priority();
    // The command may have put off its end.
    super::run::may_be_ended();
    Ok(())
}

fn remove(dir: BorrowedFd<'_>, name: &OsStr, bytes: &mut u64) -> Result<()> {
    let removed = remove_tree(dir, name)?;
    *bytes += removed.bytes;
    Ok(())
}

/// The different maps of the boxes, then those of the other modes that work here. The latter are tried out
/// only when they are asked for.
fn maps(store: &Store) -> Result<impl Iterator<Item = IdMap>> {
    let mut boxes: Vec<IdMap> = Vec::new();
    for (_, name) in store.box_entries()? {
        // A damaged box is told by whoever works in it; it is no reason to leave the trash of others.
        let Ok(record) = name.and_then(|name| store.box_record(&name)) else { continue };
        if !boxes.iter().any(|known| known.same_owners(&record.id_map)) {
            boxes.push(record.id_map);
        }
    }
    let others = [IdMode::Subuid, IdMode::Range, IdMode::Identity, IdMode::Single]
        .into_iter()
        .filter_map(|mode| ids::choose(Some(mode)).ok());
    Ok(boxes.into_iter().chain(others))
}
