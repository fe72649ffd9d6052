//! Files that are copied up before a command starts.
//!
//! The first write to a file of a lower layer copies it up. Who had opened it before reads the copy from
//! then on, but who had mapped it keeps the old one in memory: a database would be two files (kernel
//! documentation, filesystems/overlayfs, "non-standard behavior"). Opened once for writing before anybody
//! maps it, it is one file for all.
//!
//! [`plan`] says what is to be copied up, and [`execute`] does it in the new root. What did not change in
//! the end leaves the upper again ([`crate::tree::settle()`]).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::apply::Failed;
use super::plan::Op;
use crate::fault::{Fault, printable};
use crate::tree::dir::{Names, kind, lstat, open_beneath, open_child};
use crate::tree::path;
use crate::tree::settle::MOST_LEVELS;

/// Where rpm keeps its database: before and since 2021, and where Debian's keeps root's. The first is
/// often a link to the second.
pub const DATABASES: [&str; 3] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/root/.rpmdb"];

/// How many entries one place may have.
pub const MOST_ENTRIES: usize = 10_000;

/// When rpm's databases are copied up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TouchRpmdb {
    /// The parts that programs map.
    #[default]
    Mapped,
    /// Whole.
    Always,
    /// Not by themselves.
    Never,
}

impl FromStr for TouchRpmdb {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "always" => Ok(Self::Always),
            "mapped" => Ok(Self::Mapped),
            "never" => Ok(Self::Never),
            _ => Err(Fault::usage("use always, mapped or never")),
        }
    }
}

/// What is copied up at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyUp {
    /// A path inside. What is not there is passed over.
    pub place: String,
    /// Only what programs map of the database in this directory; else the file, or all files beneath it.
    pub mapped: bool,
}

/// What is copied up before a command: the files and directories at `paths`, and rpm's databases.
pub fn plan(paths: &[String], rpmdb: TouchRpmdb) -> Vec<CopyUp> {
    let databases: &[&str] = if rpmdb == TouchRpmdb::Never { &[] } else { &DATABASES };
    let mapped = rpmdb == TouchRpmdb::Mapped;
    let databases = databases.iter().map(|place| CopyUp { place: (*place).to_owned(), mapped });
    let paths = paths.iter().map(|place| CopyUp { place: place.clone(), mapped: false });
    databases.chain(paths).collect()
}

impl CopyUp {
    /// What it does, in one line.
    pub fn describe(&self) -> String {
        let what = if self.mapped { ": what is mapped of a database" } else { "" };
        format!("{}{what}", printable(&self.place))
    }
}

/// Does it in the root, which is the process's root and working directory. Places may lead through symbolic
/// links, but never out of the root or onto another mount; from there on no link is followed.
///
/// # Errors
/// The first place that failed, by its index; E2BIG for one of more than [`MOST_ENTRIES`].
pub fn execute(steps: &[CopyUp]) -> Result<(), Failed> {
    for (index, step) in steps.iter().enumerate() {
        let done = if step.mapped { mapped(&step.place) } else { whole(&step.place) };
        done.map_err(|errno| Failed { op: index, errno })?;
    }
    Ok(())
}

/// Whether the steps come to the same before the mounts of a plan as after them. What a mount lies over is not copied up,
/// and which places those are symbolic links of a layer decide; so only for the databases, and if the plan mounts nothing
/// but /dev, /run and /proc, where no layer keeps one.
pub fn is_independent(steps: &[CopyUp], ops: &[Op]) -> bool {
    let ours = ["/dev", "/run"].map(Path::new);
    let of_user = |op: &Op| match op {
        Op::Bind { .. } | Op::OverlayBind { .. } => true,
        Op::Tmpfs { target, .. } => !ours.contains(&target.as_path()),
        _ => false,
    };
    steps.iter().all(|step| step.mapped) && !ops.iter().any(of_user)
}

/// To open a file so is what copies it up. Without waiting for the other end of a fifo.
const WRITE: OFlags =
    OFlags::WRONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn whole(place: &str) -> Result<(), Errno> {
    match open(place, WRITE) {
        Err(Errno::ISDIR) => match open(place, LIST)? {
            Some(dir) => sweep(dir),
            None => Ok(()),
        },
        opened => opened.map(drop),
    }
}

/// What programs map: of a Berkeley DB its tables and its environment, of ndb the index, of LMDB all, of
/// SQLite the index of its journal.
fn mapped(place: &str) -> Result<(), Errno> {
    let Some(dir) = open(place, LIST)? else { return Ok(()) };
    let names = Names::read_on(dir.as_fd())?;
    let berkeley = names.iter().any(|(name, _)| name == c"Packages");
    for (name, told) in names.iter() {
        let bytes = name.to_bytes();
        let others = [b"Index.db".as_slice(), b"data.mdb", b"lock.mdb"];
        if berkeley || others.contains(&bytes) || bytes.ends_with(b"-shm") {
            file(dir.as_fd(), name, told)?;
        }
    }
    Ok(())
}

/// Copies up all files in a directory and the directories beneath it.
fn sweep(dir: OwnedFd) -> Result<(), Errno> {
    let mut entries = 0;
    let mut levels = vec![(Names::read_on(dir.as_fd())?, 0, dir)];
    while let Some((names, next, dir)) = levels.last_mut() {
        let Some((name, told)) = names.get(*next) else {
            levels.pop();
            continue;
        };
        *next += 1;
        entries += 1;
        if entries > MOST_ENTRIES {
            return Err(Errno::TOOBIG);
        }
        match told {
            FileType::Directory => {
                let child = open_child(dir.as_fd(), name);
                if levels.len() <= MOST_LEVELS
                    && let Some(child) = there(child)?
                {
                    levels.push((Names::read_on(child.as_fd())?, 0, child));
                }
            }
            _ => file(dir.as_fd(), name, told)?,
        }
    }
    Ok(())
}

/// Copies up one entry of a directory, if it is a regular file.
fn file(dir: BorrowedFd<'_>, name: &CStr, told: FileType) -> Result<(), Errno> {
    let told = match told {
        FileType::Unknown => kind(&lstat(dir, name)?),
        told => told,
    };
    if told != FileType::RegularFile {
        return Ok(());
    }
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = match openat2(dir, name, WRITE | OFlags::NOFOLLOW, Mode::empty(), how) {
        Err(Errno::NOSYS | Errno::PERM) => {
            openat(dir, name, WRITE | OFlags::NOFOLLOW, Mode::empty())
        }
        other => other,
    };
    there(opened).map(drop)
}

/// Opens a place in the root; none if there is nothing that could be copied up.
fn open(place: &str, flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
    let relative = place.trim_start_matches('/');
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match openat2(CWD, relative, flags, Mode::empty(), how) {
            // A rename or mount anywhere on the machine while it walked a `..` (openat2(2)).
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => return there(open_plainly(relative, flags)),
            opened => return there(opened),
        }
    }
}

/// The same without openat2(2), which no symbolic link can be trusted to.
fn open_plainly(relative: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = openat(CWD, "/", LIST, Mode::empty())?;
    let (parent, name) = path::split(relative.as_bytes());
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    openat(open_beneath(root.as_fd(), parent)?, &name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// Nothing there, a link to nowhere, a mount, a device, a fifo: not of a layer, or not a file.
fn there(opened: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match opened {
        Err(
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO | Errno::ACCESS,
        ) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without openat2(2) nothing is followed: neither a link, nor a mount.
    #[test]
    fn the_plain_way_follows_nothing() {
        let link = tempfile::Builder::new().prefix("link").tempdir_in("/var/tmp").expect("dir");
        let path = link.path().join("to-etc");
        std::os::unix::fs::symlink("/etc", &path).expect("symlink");
        let relative = |path: &str| path.trim_start_matches('/').to_owned();
        let through = relative(path.join("passwd").to_str().expect("UTF-8"));
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        assert!(open_plainly("etc/passwd", read).is_ok());
        assert!(matches!(open_plainly(&through, read), Err(Errno::LOOP | Errno::NOTDIR)));
        assert!(there(open_plainly("proc/self/environ", read)).expect("passed over").is_none());
        assert!(there(open_plainly("etc/nothing/at/all", read)).expect("passed over").is_none());
    }

    #[test]
    fn what_the_user_mounts_comes_first() {
        let databases = plan(&[], TouchRpmdb::Mapped);
        let target = || "/var/lib/rpm".into();
        let ours = [
            Op::Proc,
            Op::Tmpfs { target: "/run".into(), mode: 0, limits: Some("".into()), exec: true },
        ];
        assert!(is_independent(&databases, &ours));
        let theirs = Op::Tmpfs { target: target(), mode: 0, limits: None, exec: true };
        assert!(!is_independent(&databases, &[theirs]));
        let scratch = String::new();
        let theirs = Op::OverlayBind { source: target(), target: target(), scratch };
        assert!(!is_independent(&databases, &[theirs]));
        assert!(!is_independent(&plan(&["/a".into()], TouchRpmdb::Never), &ours));
        assert!(!is_independent(&plan(&[], TouchRpmdb::Always), &ours));
    }

    #[test]
    fn databases_come_by_themselves() {
        let lines = |paths: &[&str], rpmdb| {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            plan(&paths, rpmdb).iter().map(CopyUp::describe).collect::<Vec<_>>()
        };
        let mapped = DATABASES.map(|place| format!("{place}: what is mapped of a database"));
        assert_eq!(lines(&[], TouchRpmdb::Mapped), mapped);
        assert_eq!(lines(&["/a"], TouchRpmdb::Always), [&DATABASES[..], &["/a"]].concat());
        assert_eq!(lines(&["/a", "/b"], TouchRpmdb::Never), ["/a", "/b"]);
    }
}
