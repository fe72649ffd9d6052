//! execve(2) with everything prepared before the clone, and the descriptors that survive it.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// A vector of C strings with the null-terminated pointer array that execve(2) wants.
#[derive(Debug)]
pub struct Strings {
    // Owns what `pointers` points to; a CString's bytes stay where they are when the vector moves.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    /// Prepares `strings` for [`execve`].
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers =
            strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
        Self { strings, pointers }
    }

    /// The strings themselves.
    pub fn as_slice(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces this process by `path`. Does not allocate.
///
/// # Errors
/// What execve(2) says: ENOENT, EACCES, ENOEXEC, ...
pub fn execve(path: &CStr, argv: &Strings, envp: &Strings) -> Result<Infallible, Errno> {
    // SAFETY: `path` is a C string; both arrays end with a null pointer and point to C strings that live
    // as long as the `Strings` borrowed here.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Err(super::process::last_errno())
}

/// Replaces this process by an open file (`O_PATH` serves), which is never a script: of a descriptor that is
/// close-on-exec the kernel reads no `#!`. Does not allocate. See execveat(2).
///
/// # Errors
/// What execveat(2) says; ENOENT for a script, and for a program whose loader is missing.
pub fn execveat(file: BorrowedFd<'_>, argv: &Strings, envp: &Strings) -> Result<Infallible, Errno> {
    // SAFETY: the path is an empty C string, and AT_EMPTY_PATH has the file of the descriptor executed; both arrays
    // end with a null pointer and point to C strings that live as long as the `Strings` borrowed here.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(super::process::last_errno())
}

/// Gives up the ownership of a descriptor and leaves it open: for a child that closes all it has at once
/// ([`close_all_but`]), where one call each would only cost time.
pub fn leave_open(fd: OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: nobody owns the number any more, so nothing closes it before `close_all_but`, whose callers
    // use no descriptor afterwards that they did not keep.
    unsafe { BorrowedFd::borrow_raw(fd.into_raw_fd()) }
}

/// Closes every descriptor from `first` upwards but those of `keep`, which is sorted. For a process that
/// never uses its owned descriptors again: PID 1, and the payload before its exec.
///
/// # Errors
/// None: where there is no close_range(2) (before Linux 5.9, or by a container's filter), they are closed one
/// by one.
pub fn close_all_but(first: RawFd, keep: &[RawFd]) -> Result<(), Errno> {
    let mut from = first;
    for fd in keep.iter().copied().filter(|fd| *fd >= first) {
        if from < fd {
            close_range(from, fd as libc::c_uint - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: RawFd, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: three integers. Closing descriptors that Rust values still own is the caller's promise:
    // all callers either exec or never touch those values again and end by _exit.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) } {
        Err(Errno::NOSYS | Errno::PERM) => close_each(first, last),
        other => other,
    }
}

/// One by one, by the list: a limit that was lowered says nothing about those above it. Only where /proc is
/// not there for a moment (the payload's process closes while the root is being switched), all numbers up to
/// a limit that nobody exceeds here.
fn close_each(first: RawFd, last: libc::c_uint) -> Result<(), Errno> {
    const MOST: RawFd = 65_536;
    let last = RawFd::try_from(last).unwrap_or(RawFd::MAX);
    let open = super::detach::numbers().unwrap_or_else(|_| (first..MOST).collect());
    for fd in open.into_iter().filter(|fd| (first..=last).contains(fd)) {
        // SAFETY: close(2) takes an integer; otherwise as in `close_range`.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Marks every descriptor from `first` upwards close-on-exec, where the kernel can (5.11).
///
/// # Errors
/// None for a kernel or a container's filter that cannot.
pub fn mark_from(first: RawFd) -> Result<(), Errno> {
    let (last, flag) = (libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: three integers; nothing is closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flag) };
    match if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) } {
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM) => Ok(()),
        other => other,
    }
}

/// Lets one descriptor survive an exec.
///
/// # Errors
/// EBADF if it is not open.
fn keep_on_exec(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: fcntl with integers only; the descriptor's owner is not affected by its flag.
    let answer = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

/// Whether a descriptor number is open in this process and was so when it began: what survived our own
/// exec is not close-on-exec, and all that we open ourselves is.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: fcntl(F_GETFD) with an integer; a closed number answers EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Whether a descriptor number stands for a directory; a closed one does not.
pub fn is_directory(fd: RawFd) -> bool {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat(2) with an integer and room for its answer; a closed number answers EBADF.
    let answer = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    // SAFETY: the kernel has filled it in when it answers 0.
    answer == 0 && unsafe { stat.assume_init() }.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// How a descriptor was opened, as F_GETFL of fcntl(2) tells; none if nothing is open there.
pub fn opened_for(fd: RawFd) -> Option<OFlags> {
    // SAFETY: a number that is no descriptor is an error, which is an answer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    u32::try_from(flags).ok().map(OFlags::from_bits_retain)
}

/// Whether a descriptor number stands for a terminal; a closed one does not.
pub fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: isatty(3) takes an integer.
    unsafe { libc::isatty(fd) == 1 }
}

/// A descriptor that the caller has opened for us, by its number: from now on close-on-exec, and open until this
/// process ends. None if it [is not inherited](is_inherited).
pub fn inherited(fd: RawFd) -> Option<BorrowedFd<'static>> {
    if !is_inherited(fd) {
        return None;
    }
    // SAFETY: fcntl with integers only.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: what was open before our exec is owned by no Rust value, so nobody closes it but the end of this
    // process, or `close_all_but`, after which no descriptor is used that was not kept.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Makes `to` a copy of `from`, close-on-exec unless `keep`. `to` is a well-known number (0, 1, 2) that no
/// Rust value owns.
///
/// # Errors
/// EBADF if `from` is not open.
pub fn copy_to(from: RawFd, to: RawFd, keep: bool) -> Result<(), Errno> {
    if from == to {
        return if keep { keep_on_exec(to) } else { Ok(()) };
    }
    let flags = if keep { 0 } else { libc::O_CLOEXEC };
    // SAFETY: dup3 with integers; whatever `to` was is closed by the kernel, and by contract no Rust value
    // owns that number.
    let answer = unsafe { libc::dup3(from, to, flags) };
    if answer >= 0 { Ok(()) } else { Err(super::process::last_errno()) }
}
