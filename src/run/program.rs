//! Whether a command is a program of the new root.
//!
//! Until its exec the payload's /proc/self/exe is our own binary on the host. A layer whose command is a
//! symlink to it, or a script with `#!/proc/self/exe`, would start that inside, and whoever can look into
//! the process has a way to the file on the host: to its mode, and on kernels that let a running program be
//! written (6.11 and 6.12) to its content, if the caller owns it (CVE-2019-5736).

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, read};

use crate::sys::exec::leave_open;

/// How many interpreters of interpreters execve(2) follows.
const DEPTH: usize = 5;
/// How much of a file it looks at for `#!` (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

/// Refuses a program, or a script with an interpreter, whose path leads through a magic link of /proc. A relative
/// interpreter is looked for in `workdir`, where the payload will be. To be asked while it still may read all files.
/// False if there is no such file; what else cannot be opened passes: execve(2) will say why. The descriptors stay open, for PID 1 to close.
///
/// # Errors
/// ELOOP.
pub fn check(path: &CStr, workdir: &Path) -> Result<bool, Errno> {
    let first = path;
    let mut path = path.to_owned();
    for _ in 0..=DEPTH {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat2(CWD, &path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::LOOP) => return Err(Errno::LOOP),
            // An interpreter that is not there is for execve(2) to tell.
            Err(errno) => return Ok(errno != Errno::NOENT || path.as_c_str() != first),
            Ok(file) => leave_open(file),
        };
        let mut head = [0; HEAD];
        let length = read(file, &mut head).unwrap_or(0);
        match interpreter(&head[..length]) {
            // An absolute one stands for itself.
            Some(next) => {
                let next = workdir.join(OsStr::from_bytes(next.to_bytes()));
                path = CString::new(next.into_os_string().into_vec()).map_err(|_| Errno::INVAL)?;
            }
            None => return Ok(true),
        }
    }
    Err(Errno::LOOP)
}

/// The interpreter that the first line names, read as the kernel does.
fn interpreter(head: &[u8]) -> Option<CString> {
    let line = head.strip_prefix(b"#!")?.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    CString::new(words.next()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_does() {
        let table: [(&[u8], Option<&CStr>); 6] = [
            (b"#!/bin/sh\n", Some(c"/bin/sh")),
            (b"#! \t/bin/env -S x\n", Some(c"/bin/env")),
            (b"#!a", Some(c"a")),
            (b"#!\n/bin/sh", None),
            (b"\x7fELF", None),
            (b"", None),
        ];
        for (head, wanted) in table {
            assert_eq!(interpreter(head).as_deref(), wanted, "{head:?}");
        }
    }

    #[test]
    fn no_magic_link_is_a_program() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| {
            CString::new(dir.path().join(name).to_str().expect("UTF-8")).expect("no NUL")
        };
        let script = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("write");
        };
        let check = |path: &CStr| check(path, dir.path());
        symlink("/proc/self/exe", dir.path().join("link")).expect("symlink");
        script("script", "#!/proc/self/exe\n");
        script("twice", &format!("#!{}\n", at("script").to_str().expect("UTF-8")));
        script("relative", "#!link\n");
        script("plain", "#!/bin/sh\n");
        for name in ["link", "script", "twice", "relative"] {
            assert_eq!(check(&at(name)), Err(Errno::LOOP), "{name}");
        }
        script("lost", "#!/nowhere/sh\n");
        for (name, there) in [("plain", true), ("lost", true), ("absent", false)] {
            assert_eq!(check(&at(name)), Ok(there), "{name}");
        }
    }
}
