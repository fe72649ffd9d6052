//! The handler: answers the calls of the payload whose effect is remembered, inside the sandbox.
//!
//! PID 1 forks it when the first such call waits, so that a run without one does not pay for it. It is in the
//! user, mount and pid namespace of the payload, in the root that the payload has: a path that a payload
//! gives leads nowhere where the payload could not go itself. (A handler outside can be led through a
//! symbolic link to files of the host.) It is not dumpable, holds the listener, its journal and places of
//! /proc, nothing of the store nor of the caller, and has the run's own filter, but for three calls to look by.
//!
//! For each call: what the kernel would look at is looked at by system calls made for that and by places of the
//! calling thread (`/proc/TID/{root,cwd}`), or, where those calls are refused, by `/proc/TID/{mem,fd}`; then the kernel is
//! asked whether the thread still waits (else the number may be another thread's), and only then is something done, with
//! the capabilities that the thread has. (A filter around us that kills instead of refusing kills the handler.)
//! The kernel is never told to go on with a call whose memory was read: the payload may have changed it. It
//! is told so of calls of other user namespaces, which are not ours to judge, before anything is read.
//!
//! What may be done on disk is done there (set-id bits go, times change, errors are the kernel's own); what
//! is left is written to `user.sandbox.meta` ([`crate::tree::meta`]), or to the journal. If the handler dies,
//! callers get ENOSYS: PID 1 has closed its own descriptor, so the kernel sees that nobody listens.

mod attributes;
mod caller;
mod device;
mod notes;
mod owner;
mod place;
mod seen;
mod walk;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Gid, chdir, fchdir, umask};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups};

use self::caller::{Caller, field};
use self::notes::Notes;
pub use self::notes::{add, journal};
use self::seen::{Root, Seen};
use super::spec::RunSpec;
use super::wire::{Up, send_up};
use crate::ids::{IdMap, Mode as IdMode};
use crate::isolate::caps::CapSet;
use crate::isolate::remember::{Form, form};
use crate::sys;
use crate::sys::notify::{self, Answer, Call};
use crate::sys::process::{exit_now, set_file_ids};

/// CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID: what the calls themselves need; also MKNOD and
/// SETFCAP, by their numbers in capabilities(7).
const FILES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << MKNOD | 1 << 31;
/// CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID: whoever is root and has these may do what we may. (Of another user
/// protected_symlinks, inodes with ids outside the map, and servers of files beneath a bind take notice.)
const ANY_OWNER: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4;
/// CAP_CHOWN.
const CHOWN: u32 = 0;
/// CAP_MKNOD.
const MKNOD: u32 = 27;
/// CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT, CAP_SYS_PTRACE: to be as the caller, and to look at it.
const LOOK: u64 = 1 << 6 | 1 << 7 | 1 << 18 | 1 << 19;

/// What PID 1 has to keep in its permitted set so that it can become this.
pub const CAPABILITIES: CapSet = CapSet(FILES | LOOK);

/// Becomes the handler. The wire is closed once the supervisor has the journal.
pub fn serve(listener: &OwnedFd, wire: BorrowedFd<'_>, spec: &RunSpec) -> ! {
    let notes = Notes::new(spec.journal.as_ref());
    let handler = notes.and_then(|it| Handler::new(listener.as_fd(), wire, &spec.id_map, it));
    // Whatever fails here leaves nobody who listens: callers get ENOSYS.
    if let Ok(mut handler) = handler {
        notify::wake_up_here(listener.as_fd());
        while handler.turn().is_ok() {}
    }
    exit_now(1)
}

/// All that the handler knows.
#[derive(Debug)]
struct Handler<'a> {
    listener: BorrowedFd<'a>,
    map: &'a IdMap,
    /// /proc. The working directory is `self/fd` in it, so that the name of a descriptor is its number.
    proc: OwnedFd,
    fds: OwnedFd,
    root: OwnedFd,
    /// Which one that is. What lies on another mount is not of the layer, and cannot be remembered.
    whole: Root,
    /// Our user namespace, as /proc names it.
    namespace: Vec<u8>,
    /// The effective capabilities of now.
    effective: u64,
    /// Whether our ids for files are a caller's.
    changed: bool,
    notes: Notes,
    /// Who asked last, and what is kept of it.
    last: u32,
    seen: Option<Seen>,
    /// Whether /proc is not that of our pid namespace: then nobody can be looked at.
    blind: bool,
}

impl<'a> Handler<'a> {
    fn new(
        listener: BorrowedFd<'a>,
        wire: BorrowedFd<'_>,
        map: &'a IdMap,
        notes: Notes,
    ) -> Result<Self, Errno> {
        send_up(wire, &Up::Journal(notes.copy()?));
        umask(Mode::empty());
        chdir("/")?;
        let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, "/", path, Mode::empty())?;
        let proc = openat(&root, "proc", path, Mode::empty())?;
        let own = readlinkat(&proc, "self", Vec::new())?;
        let blind = own.to_bytes() != std::process::id().to_string().as_bytes();
        let fds = openat(&proc, "self/fd", path, Mode::empty())?;
        fchdir(&fds)?;
        let whole = seen::root_at(&root, ".")?;
        let namespace = readlinkat(&proc, "self/ns/user", Vec::new())?.into_bytes();
        // The standard descriptors of the caller went when PID 1 closed its own.
        let mut kept = [&root, &proc, &fds].map(AsRawFd::as_raw_fd).to_vec();
        kept.extend([listener.as_raw_fd(), notes.as_fd().as_raw_fd()]);
        kept.sort_unstable();
        sys::exec::close_all_but(0, &kept)?;
        let mut handler = Self {
            listener,
            map,
            proc,
            fds,
            root,
            whole,
            namespace,
            effective: 0,
            changed: false,
            notes,
            last: 0,
            seen: None,
            blind,
        };
        handler.have(FILES)?;
        Ok(handler)
    }

    /// One call. An error ends the handler: there is nobody left, or the listener is broken.
    fn turn(&mut self) -> Result<(), Errno> {
        match notify::receive(self.listener) {
            Ok(call) => {
                let answer = self.judge(&call);
                notify::answer(self.listener, call.id, answer);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            // The caller was killed before it was heard; or all are gone, which only poll(2) tells.
            Err(Errno::NOENT) => {
                let mut fds = [PollFd::from_borrowed_fd(self.listener, PollFlags::IN)];
                poll(&mut fds, None)?;
                let gone = fds[0].revents().contains(PollFlags::HUP);
                if gone { Err(Errno::NOENT) } else { Ok(()) }
            }
            Err(errno) => Err(errno),
        }
    }

    fn judge(&mut self, call: &Call) -> Answer {
        let Some(form) = form(call.arch, call.number) else { return Answer::Kernel };
        if self.blind {
            return self.unseen(form);
        }
        let caller = match Caller::of(self, call) {
            Ok(Some(caller)) => caller,
            // Of another user namespace.
            Ok(None) => return Answer::Kernel,
            Err(errno) => return Answer::Failed(errno),
        };
        let done = self.be_as(&caller, form).and_then(|()| match form {
            Form::Chown(..) | Form::Fchown(_) | Form::Fchownat => {
                self.change_owner(&caller, form, call)
            }
            Form::Mknod | Form::Mknodat => self.make_device(&caller, form, call),
            Form::Setxattrat => Err(Errno::NOSYS),
            Form::Setxattr(_) | Form::Fsetxattr => self.set_attribute(&caller, form, call),
        });
        if self.changed && self.be_ourselves().is_err() {
            exit_now(1);
        }
        done.map_or_else(Answer::Failed, |()| Answer::Done)
    }

    /// What is answered where nobody can be looked at: as without a handler.
    fn unseen(&self, form: Form) -> Answer {
        match form {
            Form::Setxattr(_)
            | Form::Fsetxattr
            | Form::Setxattrat
            | Form::Mknod
            | Form::Mknodat => Answer::Kernel,
            _ if self.map.mode == IdMode::Single => Answer::Done,
            _ => Answer::Kernel,
        }
    }

    /// Makes these capabilities effective, beside those that it takes to look at others.
    fn have(&mut self, files: u64) -> Result<(), Errno> {
        let wanted = files | LOOK;
        if self.effective != wanted {
            set_capabilities(
                None,
                CapabilitySets {
                    effective: CapabilitySet::from_bits_retain(wanted),
                    permitted: CAPABILITIES.bits(),
                    inheritable: CapabilitySet::empty(),
                },
            )?;
            self.effective = wanted;
        }
        Ok(())
    }

    /// Does what the handler does in its own right: reading and writing down what the caller was allowed to
    /// do.
    fn own<T>(&mut self, mut work: impl FnMut(&mut Self) -> Result<T, Errno>) -> Result<T, Errno> {
        match work(self) {
            Err(Errno::ACCESS | Errno::PERM) if self.effective != FILES | LOOK => {
                self.be_ourselves()?;
                work(self)
            }
            other => other,
        }
    }

    /// Takes on the ids of the caller for what touches files, and of its capabilities those for files. Where
    /// there is one id only, everybody has it. Where they make no difference they are not asked for: the kernel
    /// takes longer to tell them than for all the rest of a call.
    fn be_as(&mut self, caller: &Caller, form: Form) -> Result<(), Errno> {
        let chown = matches!(form, Form::Chown(..) | Form::Fchown(_) | Form::Fchownat);
        let any = chown && caller.effective & ANY_OWNER == ANY_OWNER;
        let alike = self.map.mode == IdMode::Single || any && self.is_of_root(caller.thread);
        if !alike {
            let status = caller.status(self)?;
            let id = |name| field(status, name).nth(3).and_then(|id| id.parse().ok());
            let (uid, gid) = id("Uid").zip(id("Gid")).ok_or(Errno::SRCH)?;
            let groups: Vec<_> = field(status, "Groups")
                .filter_map(|id| id.parse().ok())
                .map(Gid::from_raw)
                .collect();
            caller.still_waits(self)?;
            // A list that names no group but the one that root has anyway, as root's does, changes nothing.
            if (uid, gid) != (0, 0) || groups.iter().any(|group| !group.is_root()) {
                self.changed = true;
                set_thread_groups(&groups)?;
                set_file_ids(uid, gid);
                // The kernel has changed the effective set along.
                self.effective = 0;
            }
        }
        self.have(caller.effective & FILES)
    }

    fn be_ourselves(&mut self) -> Result<(), Errno> {
        if self.changed {
            set_file_ids(0, 0);
            set_thread_groups(&[])?;
            self.effective = 0;
            self.changed = false;
        }
        self.have(FILES)
    }
}
