//! newuidmap(1) and newgidmap(1): found, trusted to work, and run at the same time.

use std::env;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::process::Pid;

use super::facts::Facts;
use super::map::{Extent, IdMap};
use super::plan;
use super::refused::step_refused;
use crate::fault::{Context, Fault, Kind, Result, printable};
use crate::sys::processor::{Here, Processors};

/// Looked at after the directories of PATH, which often lacks the sbin ones for a plain user.
const USUAL: [&str; 5] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// Set-user-ID, as in stat(2).
const SETUID: u32 = 0o4000;

/// Has both helpers begin to write the maps of the process that procfs calls `child`.
///
/// # Errors
/// As [`Helpers::find`] and [`Writing::finish`].
pub(super) fn begin(child: i32, map: &IdMap) -> Result<Writing> {
    Helpers::find().and_then(|helpers| helpers.start(child, map)).map_err(|fault| told(fault, map))
}

/// The fault of a map that the helpers cannot write, or will not: if the files of /etc or the namespace around do not
/// give its ids, that is what is told. A helper is the wrong one to ask: it has the same answer for all, and in a
/// namespace without uid 0 it looks as if it were nobody's program.
fn told(fault: Fault, map: &IdMap) -> Fault {
    if fault.kind != Kind::Host {
        return fault;
    }
    Facts::read().ok().and_then(|facts| plan::against(map, &facts)).unwrap_or(fault)
}

/// Both helpers, ready to run.
#[derive(Debug)]
pub(super) struct Helpers {
    uid: PathBuf,
    gid: PathBuf,
}

impl Helpers {
    /// Finds them.
    ///
    /// # Errors
    /// A host fault with the remedy: absent, without privilege, or unable to gain it.
    pub(super) fn find() -> Result<Self> {
        if rustix::thread::no_new_privs().unwrap_or(false) {
            return Err(Fault::host(
                "use newuidmap: this process: no_new_privs is set, so that setuid programs have no effect",
            )
            .hint("start it without NoNewPrivileges= (systemd) or no-new-privileges (Docker)"));
        }
        let path = env::var_os("PATH").unwrap_or_default();
        Ok(Self { uid: find("newuidmap", &path)?, gid: find("newgidmap", &path)? })
    }

    fn start(self, child: i32, map: &IdMap) -> Result<Writing> {
        let here = Here::now(Processors::allowed());
        let uid = start(self.uid, child, &map.uids)?;
        // Or the other one would begin behind it.
        if let Some(pid) = Pid::from_raw(uid.1.id() as i32) {
            here.send_away(pid);
        }
        let gid = start(self.gid, child, &map.gids);
        let mut writing = Writing { helpers: vec![uid], map: Some(map.clone()) };
        writing.helpers.push(gid?);
        Ok(writing)
    }
}

/// Maps that are being written by others. Whoever drops it ends them.
#[must_use]
#[derive(Debug, Default)]
pub struct Writing {
    helpers: Vec<(PathBuf, Child)>,
    /// What they write.
    map: Option<IdMap>,
}

impl Writing {
    /// Waits until they are there, or until this moment.
    ///
    /// # Errors
    /// A host fault: why the ids of the map cannot be had, or what a helper wrote to its stderr. Failed if one has not ended
    /// then.
    pub fn finish(mut self, until: Option<Instant>) -> Result<()> {
        let mut ended = Vec::with_capacity(self.helpers.len());
        for (program, child) in &mut self.helpers {
            let output = match listen(child, until) {
                Ok(None) => return Err(late(program)),
                Ok(Some(output)) => Ok(output),
                Err(error) => Err(error),
            };
            ended.push((program.clone(), output));
        }
        let judged = ended.into_iter().try_for_each(|(program, output)| judge(&program, output));
        judged.map_err(|fault| match &self.map {
            Some(map) => told(fault, map),
            None => fault,
        })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        for (_, helper) in &mut self.helpers {
            // Its real user is ours, so it may be sent that, whatever its effective one is.
            if helper.kill().is_ok() {
                helper.wait().ok();
            }
        }
    }
}

/// What a helper says until its end; nothing if it does not come until this moment.
fn listen(child: &mut Child, until: Option<Instant>) -> io::Result<Option<Output>> {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while let Some(pipe) = &mut child.stderr {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut fds = [PollFd::new(pipe, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(None),
            Err(Errno::INTR) => continue,
            other => other?,
        };
        // Of one that is silent, as most are, only the end is heard.
        let count = match fds[0].revents().contains(PollFlags::IN) {
            true => pipe.read(&mut part)?,
            false => 0,
        };
        if count == 0 {
            break;
        }
        said.extend_from_slice(&part[..count]);
    }
    let status = child.wait()?;
    Ok(Some(Output { status, stdout: Vec::new(), stderr: said }))
}

fn late(program: &Path) -> Fault {
    let program = printable(&program.to_string_lossy());
    Fault::failed(format!("write the id map of a user namespace: {program}: does not end"))
        .hint("does the service that it asks for ids answer (subid in /etc/nsswitch.conf)?")
}

fn start(program: PathBuf, child: i32, extents: &[Extent]) -> Result<(PathBuf, Child)> {
    let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.count]);
    let child = Command::new(&program)
        .arg(child.to_string())
        .args(numbers.map(|number| number.to_string()))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| unstarted(&program, &error))?;
    Ok((program, child))
}

fn unstarted(program: &Path, error: &io::Error) -> Fault {
    let name = printable(&program.to_string_lossy());
    match Errno::from_io_error(error) {
        Some(errno) => step_refused("run", &name, errno),
        None => Fault::failed(format!("run: {name}: {error}")),
    }
}

/// The only exit code by which a helper itself says no: what a signal or the dynamic linker ended has said nothing.
const REFUSED: i32 = 1;

/// Reasons of a helper, in the words of glibc and musl, that may be gone at the next try.
const PASSING: [&str; 5] = [
    "Too many open files",
    "No file descriptors available",
    "Cannot allocate memory",
    "Out of memory",
    "Resource temporarily unavailable",
];

fn judge(program: &Path, output: io::Result<Output>) -> Result<()> {
    let output = output.context("wait for", program.display())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { output.status.to_string() } else { printable(&said) };
    let passing = PASSING.iter().any(|reason| said.contains(reason));
    let message = format!("write the id map of a user namespace: {}: {said}", program.display());
    if passing || output.status.code() != Some(REFUSED) {
        return Err(Fault::failed(message).hint("try again"));
    }
    Err(Fault::host(message)
        .hint("check /etc/subuid and /etc/subgid, or make the box with the mode single"))
}

fn find(name: &str, path: &OsStr) -> Result<PathBuf> {
    let folders = env::split_paths(path).chain(USUAL.iter().map(PathBuf::from));
    let mut powerless = None;
    for folder in folders.filter(|folder| folder.is_absolute()) {
        let program = folder.join(name);
        match std::fs::metadata(&program) {
            Ok(found) if is_privileged(&program, &found) => return Ok(program),
            Ok(found) if found.is_file() => powerless = powerless.or(Some(program)),
            _ => {}
        }
    }
    Err(match powerless {
        None => Fault::host(format!("use {name}: PATH, /usr/bin, /sbin: no such program"))
            .hint("install the package uidmap (Debian) or shadow-utils (Fedora)"),
        Some(program) => Fault::host(format!(
            "use {name}: {}: it is neither setuid root nor has file capabilities, or is mounted nosuid",
            program.display()
        ))
        .hint(format!("as root: `chmod u+s {}`, or install its package again", program.display())),
    })
}

fn is_privileged(program: &Path, found: &Metadata) -> bool {
    let mode = found.permissions().mode();
    let nosuid = || {
        rustix::fs::statvfs(program).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID))
    };
    let setuid_root = mode & SETUID != 0 && found.uid() == 0;
    let capable = || {
        let mut none: [u8; 0] = [];
        rustix::fs::getxattr(program, c"security.capability", &mut none).is_ok_and(|size| size > 0)
    };
    found.is_file() && mode & 0o111 != 0 && (setuid_root || capable()) && !nosuid()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Kind;

    #[test]
    fn a_missing_helper_names_the_package() {
        let fault = find("newuidmap-that-nobody-has", OsStr::new("/nowhere")).expect_err("absent");
        assert_eq!(fault.kind, Kind::Host);
        assert!(fault.hint.expect("remedy").contains("uidmap (Debian)"));
    }

    #[test]
    fn a_helper_without_privilege_is_passed_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        let fake = dir.path().join("fake-idmap");
        std::fs::write(&fake, "").expect("write");
        std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).expect("chmod");
        let fault = find("fake-idmap", dir.path().as_os_str()).expect_err("powerless");
        assert!(fault.message.contains("neither setuid root"), "{fault}");
        assert!(
            find("fake-idmap", OsStr::new("relative:."))
                .expect_err("absent")
                .message
                .contains("no such")
        );
    }

    #[test]
    fn a_helper_that_hangs_is_waited_for_no_longer_than_asked() {
        let dir = tempfile::tempdir().expect("tempdir");
        let fake = dir.path().join("fake-idmap");
        std::fs::write(&fake, "#!/bin/sh\necho words >&2; exec sleep 1000\n").expect("write");
        std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).expect("chmod");
        // A child of another test may have it open for writing at this moment.
        let helper = std::iter::repeat_with(|| start(fake.clone(), 1, &[]))
            .find_map(Result::ok)
            .expect("start");
        let pid = Pid::from_child(&helper.1);
        let writing = Writing { helpers: vec![helper], map: None };
        let until = Instant::now() + Duration::from_millis(200);
        let fault = writing.finish(Some(until)).expect_err("late");
        assert!(fault.message.ends_with("fake-idmap: does not end"), "{fault}");
        assert_eq!(rustix::process::test_kill_process(pid), Err(Errno::SRCH));
    }

    #[test]
    fn what_the_helper_said_is_in_the_fault() {
        let output = Command::new("/bin/sh")
            .args(["-c", "printf 'no\\033[1m\\nway\\n' >&2; exit 1"])
            .output();
        let fault = judge(Path::new("/bin/x"), output).expect_err("failed");
        assert!(fault.message.ends_with("/bin/x: no\\u{1b}[1m; way"), "{fault}");
    }

    #[test]
    fn a_helper_that_came_to_no_verdict_has_not_refused() {
        let table = [
            ("echo 'write to uid_map failed: Operation not permitted' >&2; exit 1", Kind::Host),
            ("exit 1", Kind::Host),
            ("echo 'open of uid_map failed: Too many open files' >&2; exit 1", Kind::Failed),
            ("echo 'error while loading shared libraries' >&2; exit 127", Kind::Failed),
            ("kill -9 $$", Kind::Failed),
        ];
        for (line, kind) in table {
            let output = Command::new("/bin/sh").args(["-c", line]).output();
            assert_eq!(judge(Path::new("/bin/x"), output).expect_err(line).kind, kind, "{line}");
        }
        let errno = |errno: Errno| unstarted(Path::new("/bin/x"), &errno.into()).kind;
        assert_eq!((errno(Errno::MFILE), errno(Errno::PERM)), (Kind::Failed, Kind::Host));
    }
}
