//! seccomp_unotify(2): system calls of one process, answered by another.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::process::last_errno;
use super::seccomp::program_of;

/// `_IOWR('!', 0, struct seccomp_notif)`, `_IOWR('!', 1, struct seccomp_notif_resp)`, `_IOW('!', 2, __u64)`,
/// `_IOW('!', 4, __u64)` of linux/seccomp.h.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6.
const SYNC_WAKE_UP: libc::c_ulong = 1;
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
/// SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5.
const CONTINUE: u32 = 1;

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Of this call alone; never reused for one listener.
    pub id: u64,
    /// The thread, in the pid namespace of who receives it; 0 if it is not there.
    pub thread: u32,
    /// Its number, on `arch`.
    pub number: u32,
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// Its arguments, as they were in the registers.
    pub args: [u64; 6],
}

/// What the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 0: it is done.
    Done,
    /// This error.
    Failed(Errno),
    /// The kernel makes the call as it stands. Only for calls nothing of whose memory was looked at, because
    /// the payload may change that meanwhile.
    Kernel,
}

/// Installs a filter as [`super::seccomp::load`] does, and gives the descriptor on which its notifications
/// are received, close-on-exec.
///
/// # Errors
/// EBUSY if a filter of this thread has a listener already; EINVAL before Linux 5.0; otherwise as `load`.
pub fn load(program: &[u8]) -> Result<OwnedFd, Errno> {
    let fprog = program_of(program)?;
    let plain = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let speculation = plain | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Killable: a signal must not make a call that was done already be made a second time.
    for flags in [speculation | WAIT_KILLABLE, speculation] {
        match set_filter(flags, &fprog) {
            Err(Errno::INVAL) => {}
            other => return other,
        }
    }
    set_filter(plain, &fprog)
}

fn set_filter(flags: libc::c_ulong, fprog: &libc::sock_fprog) -> Result<OwnedFd, Errno> {
    // SAFETY: as in `seccomp::load`: the kernel copies `len` instructions of 8 bytes from a slice that lives
    // through the call, and checks them itself.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
            flags,
            std::ptr::from_ref(fprog),
        )
    };
    if answer < 0 {
        return Err(last_errno());
    }
    // SAFETY: with NEW_LISTENER the answer is a descriptor that was just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}

/// Lets the kernel run whoever is answered on the processor of who answers. Only a saving: kernels before 6.6
/// do not know it.
pub fn wake_up_here(listener: BorrowedFd<'_>) {
    // SAFETY: this request takes a number, no pointer.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Waits for a call.
///
/// # Errors
/// ENOENT if the caller was killed just now or nobody has the filter any more; EINTR.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Call, Errno> {
    // SAFETY: seccomp_notif is plain data of integers, for which all zeroes is valid, and demanded.
    let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif, whose size is part of the request, through the pointer,
    // which lives through the call.
    let answer = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut found) };
    if answer < 0 {
        return Err(last_errno());
    }
    Ok(Call {
        id: found.id,
        thread: found.pid,
        number: found.data.nr as u32,
        arch: found.data.arch,
        args: found.data.args,
    })
}

/// Whether the caller still waits, so that its thread id is still its own.
pub fn waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64 through the pointer, which lives through the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID as _, &raw const id) == 0 }
}

/// Answers a call; one that is gone needs no answer.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) {
    let (error, flags) = match answer {
        Answer::Done => (0, 0),
        Answer::Failed(errno) => (-errno.raw_os_error(), 0),
        Answer::Kernel => (0, CONTINUE),
    };
    let response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the kernel reads one seccomp_notif_resp, whose size is part of the request, through the
    // pointer, which lives through the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const response) };
}
