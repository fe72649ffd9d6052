//! Processes: clone into namespaces, leave without destructors, watch by descriptor.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// The namespaces a child is born into: `CLONE_NEW*` bits of clone(2).
pub type Namespaces = libc::c_int;

/// A fresh user namespace.
pub const NEW_USER: Namespaces = libc::CLONE_NEWUSER;
/// A fresh mount namespace.
pub const NEW_MOUNT: Namespaces = libc::CLONE_NEWNS;
/// A fresh pid namespace: the child is its PID 1.
pub const NEW_PID: Namespaces = libc::CLONE_NEWPID;
/// Fresh System V IPC and POSIX message queues.
pub const NEW_IPC: Namespaces = libc::CLONE_NEWIPC;
/// A fresh host name.
pub const NEW_UTS: Namespaces = libc::CLONE_NEWUTS;
/// A fresh view of cgroups.
pub const NEW_CGROUP: Namespaces = libc::CLONE_NEWCGROUP;
/// A fresh network stack.
pub const NEW_NET: Namespaces = libc::CLONE_NEWNET;

/// CLONE_INTO_CGROUP of sched.h, which has no room in the `int` of the libc crate.
const INTO_CGROUP: u64 = 1 << 33;

/// Which side of a [`clone`] we are on.
#[derive(Debug)]
pub enum Side {
    /// In the parent: the child's pid, and a descriptor that becomes readable when it ends.
    Parent {
        /// The child, in our pid namespace.
        child: Pid,
        /// pidfd_open(2)'s kind of descriptor, close-on-exec.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// Makes a child in the given new namespaces, by clone3(2) or, where a container's filter answers ENOSYS
/// or EPERM to it, by clone(2).
///
/// The child starts with the parent's memory as fork(2) leaves it. It must end by [`exit_now`] or an
/// execve, never by returning through the parent's frames to `main`.
///
/// # Errors
/// What clone(2) says: EPERM and ENOSPC tell that user namespaces are off, full or filtered.
///
/// # Panics
/// Never; but the caller must have one thread only. This is asserted in debug builds, because a child of
/// a threaded process may find the allocator's lock held by a thread that no longer exists.
pub fn clone(namespaces: Namespaces) -> Result<Side, Errno> {
    debug_assert_eq!(threads(), 1, "clone needs a single-threaded caller");
    match clone3(namespaces, None) {
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::TOOBIG) => clone_old(namespaces),
        other => other,
    }
}

/// As [`clone`], with the child in this cgroup of version 2 from its first moment on (Linux 5.7). Where that
/// cannot be, it begins in ours: the second answer is whether it is there.
///
/// # Errors
/// As [`clone`]; EAGAIN also if that cgroup or one above it has all processes that it may have. Then nothing is made
/// in ours, where there may be room: moving there is not refused (cgroup v2, "PID"), and so would escape that limit.
pub fn clone_into(namespaces: Namespaces, cgroup: BorrowedFd<'_>) -> Result<(Side, bool), Errno> {
    debug_assert_eq!(threads(), 1, "clone needs a single-threaded caller");
    match clone3(namespaces, Some(cgroup)) {
        Ok(side) => Ok((side, true)),
        Err(Errno::AGAIN) => Err(Errno::AGAIN),
        Err(_) => clone(namespaces).map(|side| (side, false)),
    }
}

fn clone3(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Side, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data of integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the kernel reads size_of::<clone_args>() bytes of `args` and writes one int to `pidfd`; both
    // live through the call. No CLONE_VM and no stack: the child has its own copy of all memory. The
    // caller has one thread, so no lock can be held by somebody else in the child.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    side(answer, pidfd)
}

fn clone_old(namespaces: Namespaces) -> Result<Side, Errno> {
    let mut pidfd: libc::c_int = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: as in `clone3`; with a null stack the child goes on with a copy of ours. CLONE_PIDFD writes
    // one int through the third argument (parent_tid), which lives through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags as libc::c_long,
            0,
            std::ptr::from_mut(&mut pidfd),
            0,
            0,
        )
    };
    side(answer, pidfd)
}

fn side(answer: libc::c_long, pidfd: libc::c_int) -> Result<Side, Errno> {
    match answer {
        -1 => Err(last_errno()),
        0 => Ok(Side::Child),
        pid => {
            let child = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
            // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { child, pidfd })
        }
    }
}

/// The errno that the last failed call of this thread left.
pub fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Ends this process at once: no destructors, no flushing of buffers that belong to the parent.
///
/// Also where a filter refuses that: the C library would try again for ever. What ends [`std::process::abort`] is an
/// instruction whose signal is heeded even if it is blocked.
pub fn exit_now(code: i32) -> ! {
    for call in [libc::SYS_exit_group, libc::SYS_exit] {
        // SAFETY: both take an integer, and return only if they are refused. The callers have one thread.
        unsafe { libc::syscall(call, code) };
    }
    std::process::abort()
}

/// Takes these ids for what touches files, of this thread (setfsuid(2), setfsgid(2)). The kernel takes the
/// capabilities for files out of the effective set when the user is no longer 0, and back in when it is again.
pub fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: both calls take an integer. They tell no error: an id that is not held changes nothing, and
    // these come from a process of our own user namespace.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid as libc::c_ulong);
        libc::syscall(libc::SYS_setfsuid, uid as libc::c_ulong);
    }
}

/// What /proc says of a process (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The letter of its state.
    pub state: u8,
    /// Its parent; 0 if that is in a pid namespace around ours.
    pub parent: i32,
    /// The session that it is in, by the process that began it.
    pub session: i32,
}

/// Looks at a process; none if it is gone, or is hidden.
pub fn stat(pid: Pid) -> Option<Stat> {
    let line = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before it may have parentheses and blanks.
    let name = line.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(line.get(name + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent, session: fields.nth(1)?.parse().ok()? })
}

/// Whether a signal has stopped this process (`T` in proc_pid_stat(5)). One that cannot be looked at counts as going on.
pub fn is_stopped(pid: Pid) -> bool {
    stat(pid).is_some_and(|stat| stat.state == b'T')
}

/// How many threads this process has, by /proc/self/task; 1 if that cannot be read.
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Whether this program was started with more rights than its caller has, by set-id bits or file
/// capabilities. Costs no system call where it was not.
pub fn is_set_id() -> bool {
    // SAFETY: getauxval(3) takes an integer and reads what the kernel has put beside our environment.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    if !secure {
        return false;
    }
    // SAFETY: these calls take nothing and always succeed.
    let (user, effective, group, effective_group) =
        unsafe { (libc::getuid(), libc::geteuid(), libc::getgid(), libc::getegid()) };
    let capable =
        || rustix::thread::capabilities(None).is_ok_and(|sets| !sets.permitted.is_empty());
    // AppArmor and SELinux set the mark too, at a change of profile or domain.
    user != effective || group != effective_group || (user != 0 && capable())
}

/// What children that were waited for have used, theirs included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in user mode, microseconds.
    pub user_us: u64,
    /// Time in the kernel, microseconds.
    pub system_us: u64,
    /// The largest resident set of one of them, bytes.
    pub max_rss: u64,
}

/// The usage of all ended children of this process. See getrusage(2), RUSAGE_CHILDREN.
pub fn children_usage() -> Usage {
    // SAFETY: rusage is plain data, for which all zeroes is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one rusage through the pointer, which lives through the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let micros = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        // The kernel counts in KiB.
        max_rss: usage.ru_maxrss as u64 * 1024,
    }
}
