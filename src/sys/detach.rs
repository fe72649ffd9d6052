//! What a process sheds that goes on by itself.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

/// `ioprio_set`'s IOPRIO_WHO_PROCESS (linux/ioprio.h).
const WHO_PROCESS: libc::c_int = 1;
/// IOPRIO_CLASS_IDLE in the class bits: disk time only when nobody else wants any.
const IDLE: libc::c_int = 3 << 13;

/// Puts this process last in line for the processor (nice 19) and the disk (ioprio_set(2), idle). As
/// these are wishes, a refusal is not an error.
pub fn idle_priority() {
    let _refused = rustix::process::setpriority_process(None, 19);
    // SAFETY: ioprio_set(2) takes three integers; 0 is the calling process.
    let _refused = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE) };
}

/// Puts /dev/null in the place of every descriptor above 2 that is not of a directory, except `keep`.
///
/// That lets go of what descriptors hold: flock(2) locks, ends of pipes, sockets. The numbers stay taken,
/// so whoever still owns one can use and close it without harm.
///
/// # Errors
/// If /proc/self/fd or /dev/null cannot be opened, or dup3(2) fails.
pub fn release_all_but_directories(keep: BorrowedFd<'_>) -> Result<(), Errno> {
    let null = fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for number in numbers()? {
        if number <= 2 || number == keep.as_raw_fd() || number == null.as_raw_fd() {
            continue;
        }
        // SAFETY: the number came from /proc/self/fd of a process of one thread and is not closed here;
        // the borrow ends with this statement. One that is gone meanwhile answers EBADF.
        let stat = fs::fstat(unsafe { BorrowedFd::borrow_raw(number) });
        let Ok(stat) = stat else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            continue;
        }
        // SAFETY: dup3(2) takes integers. Its owner, if any, keeps a valid descriptor: of another file.
        if unsafe { libc::dup3(null.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
            return Err(super::process::last_errno());
        }
    }
    Ok(())
}

/// The descriptors of this process, and of the list itself, which is closed by then.
pub(super) fn numbers() -> Result<Vec<RawFd>, Errno> {
    let list = std::fs::read_dir("/proc/self/fd")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
