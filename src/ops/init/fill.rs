//! From a source to the upper of a run.

use std::env;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode as Permissions, OFlags, fstat, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, IdMap, Mode, Powers};
use crate::image::mmdebstrap::{Writer, command};
use crate::image::{Source, archive, tar};
use crate::store::{Run, Store};
use crate::tree::inscribe::inscribe;
use crate::tree::meta::Journal;
use crate::tree::owners::{self, Remembered};
use crate::tree::strangers::{Seen, Strangers};
use crate::tree::{Totals, copy_tree};

mod shifted;

/// What came out of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Filled {
    pub(super) totals: Totals,
    pub(super) remembered: Vec<Remembered>,
}

impl Filled {
    /// The file `owners`, if there is anything to remember.
    pub(super) fn owners(&self) -> Result<Option<Vec<u8>>> {
        let entries = &self.remembered;
        if entries.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        owners::write(entries, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Fills the upper of `run`. Sources are opened out here, with the caller's rights.
pub(super) fn fill(store: &Store, source: &Source, run: &Run, map: &IdMap) -> Result<Filled> {
    let place = run.fs_dir()?;
    match source {
        Source::Scratch => Ok(Filled::default()),
        Source::Directory(path) => directory(store, run, path, &place, map),
        Source::Tar(path) => {
            let file = File::open(path).context("open archive", path.display())?;
            unpack(file, &path.display().to_string(), &place, map)
        }
        Source::Mmdebstrap { suite, include } => debian(suite, include, &place, map),
    }
}

fn directory(
    store: &Store,
    run: &Run,
    path: &Path,
    place: &OwnedFd,
    map: &IdMap,
) -> Result<Filled> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source =
        openat(CWD, path, flags, Permissions::empty()).context("open directory", path.display())?;
    // The store may lie in what it is filled from (a home, the root of the machine): it would be copied into itself.
    let identity = |dir: BorrowedFd<'_>| {
        let stat = fstat(dir).context("look at", path.display())?;
        Ok((stat.st_dev, stat.st_ino))
    };
    // Or a part of it.
    let own = [identity(store.dir())?, identity(run.dir())?];
    if identity(source.as_fd())? == own[0] {
        return Err(Fault::usage(format!("fill a box from {}: it is the store", path.display())));
    }
    let shifted = match map.mode {
        // Inside root is a stranger to these files, so they are shown to it as its own. A file system that
        // cannot do this gives what a stranger may read.
        Mode::Range => shifted::shifted(&source, map)?,
        Mode::Subuid | Mode::Identity | Mode::Single => None,
    };
    let strangers = strangers(&source, map, shifted.is_some())?;
    let source = shifted.unwrap_or(source);
    inside(place, map, |target, filled| {
        let owners = &mut filled.remembered;
        filled.totals = copy_tree(source.as_fd(), target, map, owners, &own, &strangers)?;
        Ok(())
    })
    .map_err(|fault| of_directory(path, fault))
}

/// What inside cannot be seen of the owners in a directory.
fn strangers(source: &OwnedFd, map: &IdMap, shifted: bool) -> Result<Strangers> {
    if map.mode == Mode::Identity {
        return Ok(Strangers::default());
    }
    let initial = ids::in_initial_namespace();
    Strangers::of(source.as_fd(), Seen { map, shifted, initial })
}

/// The same fault with the path that the caller knows, of a file that he may not read.
fn of_directory(path: &Path, fault: Fault) -> Fault {
    match fault.message.split_once(": /") {
        Some((what, rest)) if fault.errno == Some(Errno::ACCESS.raw_os_error()) => {
            let whole = path.join(rest.split_once(": ").map_or(rest, |(name, _)| name));
            let message =
                format!("{what}: {}: permission denied", printable(&whole.to_string_lossy()));
            Fault { message, ..fault }.hint("only who may read all of a tree can fill a box from it: change the mode of this, or have its owner make an archive: `tar -C TREE -cf tree.tar .`")
        }
        _ => fault,
    }
}

fn unpack(
    input: impl Read + Send + 'static,
    name: &str,
    place: &OwnedFd,
    map: &IdMap,
) -> Result<Filled> {
    inside(place, map, |target, filled| {
        let mut reader = archive::decompress(input, name)?;
        filled.totals = tar::extract(&mut *reader, target, map, &mut filled.remembered)
            .map_err(|fault| of_archive(name, fault))?;
        Ok(())
    })
}

/// The same fault with the name of the archive, which the extraction of a stream does not know.
fn of_archive(name: &str, fault: Fault) -> Fault {
    let name = printable(name);
    let why = fault.message.strip_prefix("read archive: ").unwrap_or(&fault.message);
    // What was compressed says it already.
    let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(why);
    Fault { message: format!("read archive: {name}: {why}"), ..fault }
}

fn debian(suite: &str, include: &[String], place: &OwnedFd, map: &IdMap) -> Result<Filled> {
    if !matches!(map.mode, Mode::Subuid | Mode::Range) {
        return Err(Fault::host(format!(
            "run mmdebstrap: {suite}: it needs ranges of ids in /etc/subuid and /etc/subgid, and ids here \
             are mapped by {}",
            map.mode
        ))
        .hint(format!(
            "where there are ranges: `mmdebstrap {suite} rootfs.tar`; then here: `sandbox init --from tar:rootfs.tar`"
        )));
    }
    let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    if map.mode == Mode::Range {
        return debian_by_root(suite, include, &home, place, map);
    }
    let mut writer = Writer::start(&mut command(suite, include, &home, None))?;
    let output = output(&mut writer)?;
    let filled = unpack(output, "mmdebstrap", place, map);
    match (filled, writer.finish()) {
        // Either may be the cause: an archive that ends too early, or a reader that went away.
        (Err(ours), Err(theirs)) => {
            Err(Fault { message: format!("{}; {}", theirs.message, ours.message), ..theirs })
        }
        (filled, finished) => finished.and(filled),
    }
}

fn output(writer: &mut Writer) -> Result<std::process::ChildStdout> {
    writer.output().ok_or_else(|| Fault::failed("run mmdebstrap: mmdebstrap: it has no output"))
}

/// Started by the host's root, mmdebstrap would make no user namespace and run the scripts of packages as
/// that very root. So it is started as root of the box's ids, with a place for temporary files that is
/// theirs.
fn debian_by_root(
    suite: &str,
    include: &[String],
    home: &Path,
    place: &OwnedFd,
    map: &IdMap,
) -> Result<Filled> {
    let temporary = tempfile::tempdir().context("create", "a temporary directory")?;
    let (uid, gid) = map.root_owner();
    std::os::unix::fs::chown(temporary.path(), Some(uid), Some(gid))
        .and_then(|()| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
            std::fs::set_permissions(temporary.path(), mode)
        })
        .context("hand over", temporary.path().display())?;
    with_powers(Powers::Everything, place, map, |target, filled| {
        let mut writer = Writer::start(&mut command(suite, include, home, Some(temporary.path())))?;
        let mut reader = archive::decompress(output(&mut writer)?, "mmdebstrap")?;
        let extracted = tar::extract(&mut *reader, target, map, &mut filled.remembered);
        drop(reader);
        writer.finish()?;
        filled.totals = extracted?;
        Ok(())
    })
}

/// Does the filling inside the user namespace. `place` was opened outside, where the way to it is open.
fn inside(
    place: &OwnedFd,
    map: &IdMap,
    job: impl FnOnce(BorrowedFd<'_>, &mut Filled) -> Result<()>,
) -> Result<Filled> {
    with_powers(Powers::Files, place, map, job)
}

fn with_powers(
    powers: Powers,
    place: &OwnedFd,
    map: &IdMap,
    job: impl FnOnce(BorrowedFd<'_>, &mut Filled) -> Result<()>,
) -> Result<Filled> {
    ids::inside(Entry::Map(map), powers, || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = openat(place, ".", flags, Permissions::empty())
            .context("open directory", "of the new layer")?;
        let mut filled = Filled::default();
        job(target.as_fd(), &mut filled)?;
        owners::settle(&mut filled.remembered);
        filled.totals.files +=
            inscribe(target.as_fd(), &filled.remembered, map, &mut Journal::default())?;
        Ok(filled)
    })
}
