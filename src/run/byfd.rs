//! The exec of a command that joins a run, or is given what others may write: a cache, a bind of the host.
//!
//! Somebody hostile may be in the run already, or in another one that has the same bind, and exchange the program
//! between a look at it and its exec ([`program::check`](super::program::check) is for a root that nobody else can
//! write to). Until the exec our /proc/self/exe
//! is the binary on the host: a program that is a link to it, or a script with `#!/proc/self/exe`, would run it
//! inside, where whoever may look into that process has a way to a file of the caller's (CVE-2019-5736). So the file
//! is opened without following a magic link, and executed by that descriptor. The kernel reads no `#!` of a descriptor
//! that is close-on-exec (it answers ENOENT), so scripts are taken apart here, and what is executed in the end is no
//! script, whatever became of the file meanwhile.
//!
//! The loader of an ELF file is looked at, too. Whoever exchanges the loader between that and the exec still gets our
//! program mapped: with the payload's rights, and without a descriptor or a name of its file.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, read};

use super::{elf, program};
use crate::sys::exec::{Strings, execveat};

/// How many interpreters of interpreters execve(2) follows.
const DEPTH: usize = 5;
/// How much of a file it looks at for `#!` (BINPRM_BUF_SIZE).
const LINE: usize = 256;

/// Tries the candidates as execvp(3) does: a missing one is passed over, one that may not be executed is
/// remembered.
pub(super) fn exec(
    candidates: &[CString],
    argv: &Strings,
    environment: &Strings,
) -> Result<Infallible, Errno> {
    let mut answer = Errno::NOENT;
    for path in candidates {
        match open(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
            Ok(file) => match one(path, file, argv, environment) {
                Err(Errno::ACCESS) => answer = Errno::ACCESS,
                Err(errno) => return Err(errno),
                Ok(never) => match never {},
            },
        }
    }
    Err(answer)
}

fn one(
    path: &CStr,
    mut file: OwnedFd,
    argv: &Strings,
    environment: &Strings,
) -> Result<Infallible, Errno> {
    let mut words = argv.as_slice().to_vec();
    let mut path = path.to_owned();
    for _ in 0..=DEPTH {
        let (head, readable) = head(&path);
        let Some((interpreter, word)) = shebang(&head[..head.len().min(LINE)]) else {
            if let Some(loader) = readable.and_then(|file| elf::loader(file.as_fd(), &head)) {
                program::check_loader(&loader)?;
            }
            let Err(errno) = execveat(file.as_fd(), &Strings::new(words), environment);
            // The file is there: it is its loader that is not.
            return Err(if errno == Errno::NOENT { Errno::LIBBAD } else { errno });
        };
        // The rights of a script count, too.
        rustix::fs::access(&path, rustix::fs::Access::EXEC_OK)?;
        let rest = words.split_off(words.len().min(1));
        words = [interpreter.clone()].into_iter().chain(word).chain([path]).chain(rest).collect();
        file = open(&interpreter).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Errno::LIBBAD,
            other => other,
        })?;
        path = interpreter;
    }
    Err(Errno::LOOP)
}

/// As a place: a program need not be readable.
fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// What the file begins with, and the file; nothing if it cannot be read.
fn head(path: &CStr) -> (Vec<u8>, Option<OwnedFd>) {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut head = vec![0; elf::HEAD];
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS).ok();
    let length = file.as_ref().and_then(|file| read(file, &mut head).ok()).unwrap_or(0);
    head.truncate(length);
    (head, file)
}

/// The interpreter of the first line, and its one word, read as the kernel does.
fn shebang(head: &[u8]) -> Option<(CString, Option<CString>)> {
    let line = head.strip_prefix(b"#!")?.split(|byte| matches!(byte, b'\n' | 0)).next()?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line.trim_ascii();
    let end = line.iter().position(blank).unwrap_or(line.len());
    let word = line[end..].trim_ascii();
    let word = (!word.is_empty()).then(|| CString::new(word).ok()).flatten();
    let interpreter = &line[..end];
    (!interpreter.is_empty()).then(|| CString::new(interpreter).ok()).flatten().map(|i| (i, word))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_does() {
        let read = |head: &[u8]| {
            let text = |text: CString| text.into_string().unwrap();
            shebang(head).map(|(path, word)| (text(path), word.map(text).unwrap_or_default()))
        };
        let wanted = |path: &str, word: &str| Some((path.to_owned(), word.to_owned()));
        assert_eq!(read(b"#!/bin/sh\n"), wanted("/bin/sh", ""));
        assert_eq!(read(b"#! \t/bin/env -S a b \n"), wanted("/bin/env", "-S a b"));
        assert_eq!(read(b"#!a"), wanted("a", ""));
        for head in [b"#!\n/bin/sh".as_slice(), b"\x7fELF", b""] {
            assert_eq!(read(head), None);
        }
    }

    #[test]
    fn nothing_is_executed_through_a_magic_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| CString::new(dir.path().join(name).to_str().unwrap()).unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).unwrap();
        };
        symlink("/proc/self/exe", dir.path().join("link")).unwrap();
        script("script", "#!/proc/self/exe\n");
        script("twice", &format!("#!{}\n", at("script").to_str().unwrap()));
        script("itself", &format!("#!{}\n", at("itself").to_str().unwrap()));
        script("lost", "#!/nowhere/sh\n");
        script("text", "no program\n");
        script("loaded", "");
        let loaded = elf::tests::made(2, "/proc/self/exe", 300);
        std::fs::write(dir.path().join("loaded"), loaded).unwrap();
        let argv = || Strings::new(vec![c"x".into()]);
        let tried = |name: &str| exec(&[at(name)], &argv(), &argv()).unwrap_err();
        for name in ["link", "script", "twice", "itself", "loaded"] {
            assert_eq!(tried(name), Errno::LOOP, "{name}");
        }
        assert_eq!(tried("lost"), Errno::LIBBAD);
        assert_eq!(tried("text"), Errno::NOEXEC);
        assert_eq!(tried("absent"), Errno::NOENT);
        assert_eq!(exec(&[at("absent"), at("lost")], &argv(), &argv()).unwrap_err(), Errno::LIBBAD);
    }
}
