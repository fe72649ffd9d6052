//! `unshare`: a program of the host with the ids of a box, and a snapshot's tree beside its own root.
//!
//! This is no sandbox and no boundary: the program is the host's, it sees the host's files, processes and network,
//! and does there what the caller may do. What it has of the box is the user namespace, in which the files of the
//! tree have their owners and it is root, and a mount namespace of its own, in which the tree lies where the store was.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
    mount_change,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::diff::at;
use super::fresh::{Fresh, Opened};
use super::run::candidates;
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Powers};
use crate::remedy::{Refused, Spaces};
use crate::rootfs::overlay::attach;
use crate::run::outcome::{Ended, NOT_EXECUTABLE, NOT_FOUND};
use crate::store::{BoxName, LayerId, SnapshotName, Store};
use crate::sys;
use crate::sys::exec::Strings;
use crate::sys::namespace::unshare_mounts;
use crate::sys::process::{Side, clone, exit_now};
use crate::sys::signal::Blocked;

/// The variable that names the tree.
pub const ROOT: &str = "SANDBOX_ROOT";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct UnshareOptions {
    /// The snapshot; head if none.
    pub from: Option<String>,
    /// The name to keep the tree's changes by, if the command returns 0; they are dropped otherwise.
    pub commit: Option<SnapshotName>,
    /// The umask of the command, which ours need not be.
    pub umask: Mode,
    /// The command.
    pub argv: Vec<OsString>,
}

/// What came of it.
#[derive(Debug)]
pub struct Unshared {
    /// Our exit code.
    pub code: u8,
    /// Why the command was not started.
    pub fault: Option<Fault>,
    /// The layer that was made.
    pub committed: Option<LayerId>,
}

/// How the command ended.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// The status of wait(2), and the errno of making the tree read-only for what the command has left behind.
    Status(i32, Option<i32>),
    /// The errno of its exec.
    Unstarted(i32),
}

/// Runs the command to its end.
///
/// # Errors
/// Not-found for the snapshot; conflict for a name that is taken; what cannot be mounted or made.
pub fn unshare(store: &Store, box_name: &BoxName, options: &UnshareOptions) -> Result<Unshared> {
    let word = options.from.as_deref().unwrap_or("head");
    let shown = |word: &OsString| word.to_string_lossy().into_owned();
    let argv = options.argv.iter().map(shown).collect();
    let command = Command::new(store, &options.argv, options.umask)?;
    let fresh = Fresh::begin(store, box_name, word, options.commit.as_ref(), argv)?;
    // A key of the terminal is meant for the command: we stay to keep what it decides is to be kept, and to clean up.
    let held = Held::back();
    let open = || {
        unshare_mounts().making(Spaces::MOUNTS, "make a mount namespace", "for a command")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).mounting("make the mounts private", "/")?;
        fresh.open()
    };
    let entry = Entry::Map(fresh.map());
    let told = at(store, || {
        ids::inside_prepared(entry, Powers::Everything, open, |opened| command.run(&opened))
    });
    let answer = told.and_then(|told| settle(&fresh, &told, &options.argv));
    let discarded = fresh.discard();
    drop(held);
    let answer = answer?;
    discarded.map(|()| answer)
}

fn settle(fresh: &Fresh<'_>, told: &Told, argv: &[OsString]) -> Result<Unshared> {
    let name = printable(&argv.first().map(|word| word.to_string_lossy()).unwrap_or_default());
    match told {
        Told::Status(status, open) => {
            let ended = Ended::from_wait(*status);
            let code = ended.exit_code();
            let commits = fresh.commits() && ended.success();
            if let Some(errno) = open.filter(|_| commits) {
                return Err(still_open(Errno::from_raw_os_error(errno)));
            }
            let made = if commits { fresh.commit("unshare", Some(0), "")? } else { None };
            Ok(Unshared { code, fault: None, committed: made.map(|made| made.layer) })
        }
        Told::Unstarted(errno) => {
            let errno = Errno::from_raw_os_error(*errno);
            let missing = errno == Errno::NOENT;
            let fault = Fault::errno("unshare", name, errno);
            let code = if missing { NOT_FOUND } else { NOT_EXECUTABLE };
            Ok(Unshared { code, fault: Some(fault), committed: None })
        }
    }
}

/// What the command has left behind could change what is committed.
fn still_open(errno: Errno) -> Fault {
    match errno {
        Errno::BUSY => {
            let what = "a process that the command has left behind still writes to the tree";
            Fault::busy(format!("unshare: commit: {what}"))
                .hint("let the command end it, or `wait` for it")
        }
        errno => Fault::errno("make read-only", "the tree", errno),
    }
}

/// SIGINT and SIGQUIT blocked, until it is dropped; those that came meanwhile were not for us, and are forgotten.
struct Held(#[expect(dead_code, reason = "it is dropped")] Blocked);

/// What the keys of a terminal send to all of its foreground.
const KEYS: [NixSignal; 2] = [NixSignal::SIGINT, NixSignal::SIGQUIT];

impl Held {
    fn back() -> Self {
        Self(Blocked::new(&KEYS))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The mask comes back after this.
        for key in KEYS {
            sys::signal::forget(key).ok();
        }
    }
}

/// Takes away the writes of all that still have the tree, wherever it is mounted: a layer never changes, and what is
/// thrown away is not filled again.
///
/// # Errors
/// EBUSY if somebody has a file of it open for writing.
fn close(root: &OwnedFd) -> Result<(), Errno> {
    let fs = fspick(root, c"", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    fsconfig_set_flag(&fs, "ro")?;
    fsconfig_reconfigure(&fs)
}

/// A command of the host, ready to be executed.
struct Command {
    argv: Strings,
    environment: Strings,
    candidates: Vec<CString>,
    /// Where the caller is.
    here: PathBuf,
    umask: Mode,
    mask: SigSet,
    /// Where the tree will be: over the store.
    over: PathBuf,
}

impl Command {
    fn new(store: &Store, argv: &[OsString], umask: Mode) -> Result<Self> {
        let word = |word: &OsString| {
            CString::new(word.clone().into_vec())
                .map_err(|_| Fault::usage("unshare: a word of the command has a null byte"))
        };
        let argv = argv.iter().map(word).collect::<Result<Vec<_>>>()?;
        let over = store.path().canonicalize().context("resolve", store.path().display())?;
        let mut root = OsString::from(format!("{ROOT}="));
        root.push(over.join("root"));
        let mut lines = vec![root];
        for (key, value) in std::env::vars_os().filter(|(key, _)| key != ROOT) {
            let mut line = key;
            line.push("=");
            line.push(value);
            lines.push(line);
        }
        let environment = lines.iter().map(word).collect::<Result<Vec<_>>>()?;
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, None, Some(&mut mask)).ok();
        let first = argv.first().filter(|word| !word.is_empty());
        let first = first.ok_or_else(|| Fault::usage("unshare: no command given"))?;
        Ok(Self {
            candidates: candidates(first, &environment),
            argv: Strings::new(argv),
            environment: Strings::new(environment),
            here: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            umask,
            mask,
            over,
        })
    }

    /// Puts the tree in its place and runs the command, as root inside.
    fn run(&self, opened: &Opened) -> Result<Told> {
        let root = opened.mount()?;
        self.place(&root).context("put the tree in place of", self.over.display()).map_err(
            |fault| match fault.hint {
                None => fault.hint("--base-dir must be where every user may go to its parent"),
                Some(_) => fault,
            },
        )?;
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for a command")?;
        let child = match clone(0).context("make a process", "for a command")? {
            Side::Child => {
                let errno = self.become_it();
                rustix::io::write(&write, &errno.raw_os_error().to_ne_bytes()).ok();
                exit_now(i32::from(NOT_FOUND))
            }
            Side::Parent { child, .. } => child,
        };
        drop(write);
        let mut errno = [0; 4];
        let unstarted = retry_on_intr(|| rustix::io::read(&read, &mut errno)) == Ok(4);
        let waited = retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
        let (_, status) = waited
            .context("wait for", "a command")?
            .ok_or_else(|| Fault::failed("unshare: lost"))?;
        Ok(match unstarted {
            true => Told::Unstarted(i32::from_ne_bytes(errno)),
            false => Told::Status(status.as_raw(), close(&root).err().map(Errno::raw_os_error)),
        })
    }

    /// Covers the store with a directory in memory, in which the tree is `root`. So nothing is left on the host,
    /// and nothing of the store is in the way of the command.
    fn place(&self, root: &OwnedFd) -> Result<(), Errno> {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&fs, "mode", "0755")?;
        fsconfig_set_string(&fs, "size", "64k")?;
        fsconfig_create(&fs)?;
        let cover = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        mkdirat(&cover, "root", Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let store = openat(CWD, &self.over, flags, Mode::empty())?;
        attach(cover.as_fd(), store.as_fd())?;
        let place = openat(&cover, "root", flags, Mode::empty())?;
        attach(root.as_fd(), place.as_fd())
    }

    /// Becomes the command, or tells why not.
    fn become_it(&self) -> Errno {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
        rustix::process::umask(self.umask);
        // Where the caller is may be closed to inside root, or be the store.
        if rustix::process::chdir(&self.here).is_err() {
            rustix::process::chdir(Path::new("/")).ok();
        }
        sys::signal::default(NixSignal::SIGPIPE).ok();
        sys::signal::default(NixSignal::SIGXFSZ).ok();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None).ok();
        let mut answer = Errno::NOENT;
        for path in &self.candidates {
            let Err(errno) = sys::exec::execve(path, &self.argv, &self.environment);
            match errno {
                Errno::NOENT | Errno::NOTDIR => {}
                Errno::ACCESS => answer = errno,
                _ => return errno,
            }
        }
        answer
    }
}
