//! Writing the maps of a user namespace.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{self, Mode as Permissions, OFlags};
use rustix::io::Errno;
use rustix::process::{self, DumpableBehavior, Pid, PidfdFlags};

use super::accounts;
use super::helper::{self, Writing};
use super::map::{Extent, IdMap, Mode};
use super::refused::map_refused;
use super::span::{Span, covers, within};
use crate::fault::{Context, Fault, Result};

/// How long those who write a map for a job may take: a helper that hangs must not hold what a command holds for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes the maps of `child`, a child of this process in a fresh user namespace that waits for them.
///
/// # Errors
/// As [`start_maps`] and [`Writing::finish`].
pub fn write_maps(child: Pid, map: &IdMap) -> Result<()> {
    start_maps(child, map)?.finish(Instant::now().checked_add(PATIENCE))
}

/// The same, for a caller that has something else to do meanwhile.
///
/// For [`Mode::Subuid`] newuidmap(1) and newgidmap(1) do it, both at the same time; for [`Mode::Range`]
/// and [`Mode::Identity`] this process itself, which needs CAP_SETUID, CAP_SETGID and, if the outside
/// contains 0, CAP_SETFCAP (Linux 5.12). [`Mode::Single`] is done here too, for a caller that likes it so.
///
/// # Errors
/// A host fault with the remedy.
pub fn start_maps(child: Pid, map: &IdMap) -> Result<Writing> {
    let number = number_in_proc(child)?;
    let map = aligned(map);
    if map.mode == Mode::Subuid {
        return helper::begin(number, &map);
    }
    write_all(&format!("/proc/{number}"), &map)
        .map_err(|(file, errno)| map_refused(&format!("/proc/{number}/{file}"), errno))?;
    Ok(Writing::default())
}

/// Writes the map of this process's own fresh user namespace, of one id each: the caller's.
///
/// `setgroups` is denied first, as the kernel demands of whoever has no capability outside
/// (user_namespaces(7)). A process that is not dumpable does not own its files in /proc, so it is made
/// dumpable meanwhile, if that is what the kernel says.
///
/// # Errors
/// What the kernel says to the write: EPERM and EACCES where AppArmor or a container takes capabilities.
pub fn write_own_map(map: &IdMap) -> Result<(), Errno> {
    match write_all("/proc/self", map) {
        Err((_, Errno::ACCESS)) if process::dumpable_behavior()? != DumpableBehavior::Dumpable => {}
        other => return other.map_err(|(_, errno)| errno),
    }
    process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let written = write_all("/proc/self", map).map_err(|(_, errno)| errno);
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    written
}

/// The same map, cut so that each extent lies within one extent of our own namespace: the kernel refuses
/// an extent that spans two of them (map_id_range_down), and a map may be recorded where there was one.
fn aligned(map: &IdMap) -> IdMap {
    let cut = |extents: &[Extent], file| match std::fs::read_to_string(file) {
        Ok(text) => cut(extents, &accounts::held(&text)),
        Err(_) => extents.to_vec(),
    };
    IdMap {
        mode: map.mode,
        uids: cut(&map.uids, "/proc/self/uid_map"),
        gids: cut(&map.gids, "/proc/self/gid_map"),
    }
}

fn cut(extents: &[Extent], held: &[Span]) -> Vec<Extent> {
    let pieces = extents.iter().flat_map(|whole| {
        let span = Span { first: whole.outside, count: whole.count };
        // What is not held stays, for the kernel to refuse.
        let parts = if covers(held, span) { within(span, held) } else { vec![span] };
        parts.into_iter().map(|part| Extent {
            inside: whole.inside + (part.first - whole.outside),
            outside: part.first,
            count: part.count,
        })
    });
    pieces.collect()
}

fn write_all(process: &str, map: &IdMap) -> Result<(), (&'static str, Errno)> {
    if map.mode == Mode::Single {
        write_file(process, "setgroups", "deny").map_err(|errno| ("setgroups", errno))?;
    }
    for (file, extents) in [("gid_map", &map.gids), ("uid_map", &map.uids)] {
        write_file(process, file, &text(extents)).map_err(|errno| (file, errno))?;
    }
    Ok(())
}

/// One write(2): the kernel takes a map only in one piece.
fn write_file(process: &str, file: &str, text: &str) -> Result<(), Errno> {
    let path = format!("{process}/{file}");
    let file = fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Permissions::empty())?;
    match rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes()))? {
        written if written == text.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn text(extents: &[Extent]) -> String {
    extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count)).collect()
}

/// What /proc calls `child`. That is another number where /proc belongs to an outer pid namespace, as in
/// a container whose own procfs is forbidden; the wrong number would be a stranger's process.
///
/// # Errors
/// A host fault if it is not seen from there.
pub fn number_in_proc(child: Pid) -> Result<i32> {
    let own = fs::readlink("/proc/self", Vec::new()).context("read", "/proc/self")?;
    if own.to_bytes() == process::getpid().as_raw_nonzero().to_string().as_bytes() {
        return Ok(child.as_raw_nonzero().get());
    }
    let pidfd = process::pidfd_open(child, PidfdFlags::empty()).context("watch", "a child")?;
    pid_by_descriptor(&pidfd)
}

/// The number of a pidfd's process in the pid namespace of /proc: `Pid:` of its fdinfo (pidfd_open(2)).
fn pid_by_descriptor(pidfd: &OwnedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let mut info = String::new();
    File::open(&path).and_then(|mut file| file.read_to_string(&mut info)).context("read", &path)?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|&number| number > 0)
        .ok_or_else(|| {
            Fault::host("find a child in /proc: /proc/self/fdinfo: it is not seen from there")
                .hint("mount the /proc of this pid namespace")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_the_kernel_reads_and_fits_a_page() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        assert_eq!(
            text(&[extent(0, 1000, 1), extent(1, 100_000, 65536)]),
            "0 1000 1\n1 100000 65536\n"
        );
        let widest = vec![extent(u32::MAX, u32::MAX, u32::MAX); super::super::map::MOST_EXTENTS];
        assert!(text(&widest).len() < 4096);
    }

    #[test]
    fn extents_are_cut_where_the_namespace_around_is() {
        let extent = |inside, outside, count| Extent { inside, outside, count };
        let held = [Span { first: 1, count: 99 }, Span { first: 0, count: 1 }];
        let whole = [extent(0, 0, 50), extent(50, 99, 1)];
        let pieces = [extent(1, 1, 49), extent(0, 0, 1), extent(50, 99, 1)];
        assert_eq!(cut(&whole, &held), pieces);
        let beyond = [extent(0, 50, 100)];
        assert_eq!(cut(&beyond, &held), beyond);
        let initial = [Span { first: 0, count: u32::MAX }];
        assert_eq!(cut(&whole, &initial), whole);
    }

    #[test]
    fn a_descriptor_tells_the_number_in_proc() {
        let own = process::getpid();
        let pidfd = process::pidfd_open(own, PidfdFlags::empty()).expect("pidfd");
        assert_eq!(pid_by_descriptor(&pidfd).expect("number"), own.as_raw_nonzero().get());
        assert_eq!(number_in_proc(own).expect("number"), own.as_raw_nonzero().get());
    }
}
