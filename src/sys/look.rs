//! Looking into another process without its files in /proc.

use rustix::io::Errno;
use rustix::process::Pid;

use super::process::last_errno;

/// Copies bytes from the memory of a thread, beginning at an address of its own (process_vm_readv(2)). Gives how many,
/// in bytes: fewer than asked for if what follows is not there.
///
/// # Errors
/// EFAULT if nothing is there; ESRCH; EPERM if the caller may not trace it, or a filter refuses the call; ENOSYS.
pub fn memory(thread: Pid, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let ours = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let theirs = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes behind `ours`, which is the length of a slice that we borrow
    // mutably through the call. `theirs` is of the other process: here it is a number, and the kernel checks it.
    let got = unsafe {
        libc::process_vm_readv(
            thread.as_raw_nonzero().get(),
            &raw const ours,
            1,
            &raw const theirs,
            1,
            0,
        )
    };
    usize::try_from(got).map_err(|_| last_errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_memory() {
        let text = *b"what is here";
        let mut found = [0; 12];
        let (us, at) = (rustix::process::getpid(), text.as_ptr() as u64);
        assert_eq!(memory(us, at, &mut found), Ok(12));
        assert_eq!(found, text);
        assert_eq!(memory(us, 16, &mut found), Err(Errno::FAULT));
        let nobody = Pid::from_raw(i32::MAX).expect("not 0");
        assert_eq!(memory(nobody, at, &mut found), Err(Errno::SRCH));
    }
}
