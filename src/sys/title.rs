//! What /proc/PID/cmdline shows of this process.

use std::os::unix::ffi::OsStrExt;

/// What is shown instead of the words that we were started with.
const TITLE: &[u8] = b"sandbox";

/// Takes the words that this process was started with out of /proc/PID/cmdline, which everybody who sees a process
/// may read. They name files of the host. Nothing if the kernel has laid them out in another way than it does.
///
/// A process of one thread, after a clone: its parent keeps its own.
pub fn hide_arguments() {
    let Some(end) = end_of_arguments() else { return };
    let words: Vec<u8> =
        std::env::args_os().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
    let Some(begin) = end.checked_sub(words.len()) else { return };
    let (begin, length) = (begin as *mut u8, words.len());
    // SAFETY: below the environment of a new process lie its arguments, all of which the kernel writes to the same
    // mapping, at the top of the stack; `end_of_arguments` has seen that the environment lies there as it was given.
    // Rust has copied what it hands out as arguments, so nobody else refers to these bytes; the only thread is here.
    let there = unsafe { std::slice::from_raw_parts_mut(begin, length) };
    if there == words.as_slice() {
        retitle(there);
    }
}

/// As setproctitle(3) of the BSDs, which Linux knows by a last byte that is not null: it shows what is before the first
/// null byte then.
fn retitle(area: &mut [u8]) {
    let room = area.len().saturating_sub(2);
    let shown = TITLE.len().min(room);
    area.fill(0);
    area[..shown].copy_from_slice(&TITLE[..shown]);
    if let Some(last) = area.last_mut() {
        *last = b'.';
    }
}

/// Where the environment of this process begins in memory: behind it is the path of the program, at the top of the
/// stack, and before it are the arguments. None if it has been moved.
fn end_of_arguments() -> Option<usize> {
    unsafe extern "C" {
        static mut environ: *const *const libc::c_char;
    }
    let top = rustix::param::linux_execfn().as_ptr() as usize;
    // SAFETY: the only thread is here, so nobody changes it; it is null or an array that ends with a null pointer, each
    // pointer before it a C string.
    unsafe {
        let mut entry = environ;
        if entry.is_null() || (*entry).is_null() {
            return Some(top);
        }
        let begin = *entry as usize;
        let mut end = begin;
        while !(*entry).is_null() {
            if *entry as usize != end {
                return None;
            }
            end += libc::strlen(*entry) + 1;
            entry = entry.add(1);
        }
        (end == top).then_some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_ends_as_the_kernel_wants_it() {
        for (before, after) in [
            ("/usr/bin/sandbox\0run\0true\0", "sandbox\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0."),
            ("s\0run\0x\0", "sandbo\0."),
            ("s\0", "\0."),
            ("\0", "."),
        ] {
            let mut area = before.as_bytes().to_vec();
            retitle(&mut area);
            assert_eq!(area, after.as_bytes(), "{before}");
        }
        retitle(&mut []);
    }
}
