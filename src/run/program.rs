//! Whether a command is a program of the new root.
//!
//! Until its exec the payload's /proc/self/exe is our own binary on the host. A layer whose command is a
//! symlink to it, a script with `#!/proc/self/exe`, or an ELF file with that for its loader, would start that inside,
//! and whoever can look into the process has a way to the file on the host: to its mode, and on kernels that let a running program be
//! written (6.11 and 6.12) to its content, if the caller owns it (CVE-2019-5736).

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, read};

use super::elf;
use crate::sys::exec::leave_open;

/// How many interpreters of interpreters execve(2) follows.
const DEPTH: usize = 5;
/// How much of a file it looks at for `#!` (BINPRM_BUF_SIZE).
const LINE: usize = 256;

/// Refuses a program, its loader, or the interpreter of a script, whose path leads through a magic link of /proc. A relative
/// one is looked for in `workdir`, where the payload will be. To be asked while it still may read all files.
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
        let mut head = [0; elf::HEAD];
        let length = read(file, &mut head).unwrap_or(0);
        let head = &head[..length];
        // An absolute one stands for itself.
        let from_here = |next: CString| {
            let next = workdir.join(OsStr::from_bytes(next.to_bytes()));
            CString::new(next.into_os_string().into_vec()).map_err(|_| Errno::INVAL)
        };
        match interpreter(&head[..length.min(LINE)]) {
            Some(next) => path = from_here(next)?,
            None => {
                let loader = elf::loader(file, head).map(from_here).transpose()?;
                return loader.map_or(Ok(()), |loader| check_loader(&loader)).and(Ok(true));
            }
        }
    }
    Err(Errno::LOOP)
}

/// Refuses a loader whose path leads through a magic link. Of a loader the kernel follows no loader. One that is not there
/// is for execve(2) to tell.
///
/// # Errors
/// ELOOP.
pub(super) fn check_loader(path: &CStr) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::LOOP) => Err(Errno::LOOP),
        opened => {
            opened.map(leave_open).ok();
            Ok(())
        }
    }
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
        let program = |name: &str, loader: &str| {
            let file = elf::tests::made(2, loader, 300);
            std::fs::write(dir.path().join(name), file).expect("write");
        };
        program("loaded", "/proc/self/exe");
        program("near", "link");
        program("real", "/nowhere/ld.so");
        script("by", &format!("#!{}\n", at("loaded").to_str().expect("UTF-8")));
        for name in ["link", "script", "twice", "relative", "loaded", "near", "by"] {
            assert_eq!(check(&at(name)), Err(Errno::LOOP), "{name}");
        }
        script("lost", "#!/nowhere/sh\n");
        for (name, there) in [("plain", true), ("lost", true), ("real", true), ("absent", false)] {
            assert_eq!(check(&at(name)), Ok(there), "{name}");
        }
    }
}
