//! What may hang for ever, done by a child that is given up on: a file system of a host (FUSE, NFS) whose server does not
//! answer, a FIFO that nobody writes to. Whoever waits there itself hears of no time that is over.

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitId, WaitIdOptions, getpid, getppid, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

use crate::fault::{Context, Fault, Result, printable};
use crate::sys::exec::close_all_but;
use crate::sys::process::{Side, clone, exit_now};

/// How much of the first file is read: as much as a profile may have.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a file to its end, at most so many bytes and one.
///
/// # Errors
/// What open(2) and read(2) say.
pub fn read_file(file: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(file)?.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// The same, until this moment at most. This process must have one thread.
///
/// # Errors
/// The same; failed if the time is over.
pub fn read_file_until(file: &Path, most: u64, until: Instant) -> Result<Vec<u8>> {
    let (said, whole) = child_until(until, &[file], |reply| match read_file(file, most) {
        // The first byte tells that there is no error.
        Ok(content) => write_all(reply, &[b"+", &*content].concat()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            write_all(reply, &[b"-".as_slice(), &errno.to_ne_bytes()].concat());
        }
    })?;
    match said.split_first() {
        _ if !whole => Err(over(file, "--timeout")),
        Some((b'+', content)) => Ok(content.to_vec()),
        Some((_, errno)) => {
            let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
            Err(Errno::from_raw_os_error(errno)).context("read", file.display())
        }
        None => Err(Fault::failed(format!("read: {}: the reader was killed", file.display()))),
    }
}

/// Whether a file system is mounted that may not answer. Only the mounts of this namespace are looked at, which takes some
/// tens of microseconds; a child that looks at paths takes hundreds.
pub fn may_hang() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").map_or(true, |text| asks_others(&text))
}

/// The same of the text of mountinfo (proc(5)): kinds that ask a server or a program.
fn asks_others(mounts: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "autofs", "virtiofs", "lustre", "gfs2",
        "ocfs2",
    ];
    let kind = |line: &str| {
        let kind = line.split_once(" - ").map_or("", |(_, rest)| rest);
        // The control files of FUSE and NFS's server are the kernel's own.
        !matches!(kind.split(' ').next(), Some("fusectl" | "nfsd"))
            && OTHERS.iter().any(|other| kind.starts_with(other))
    };
    mounts.lines().any(kind)
}

/// Looks at each of these paths, and into those that are to be read, and forgets what was found; `flag` is what gives the time
/// for it. This process must have one thread.
///
/// # Errors
/// Failed, with the path, if one of them has not answered when the time is over.
pub fn answer_until(paths: &[&Path], files: &[&Path], until: Instant, flag: &str) -> Result<()> {
    if paths.is_empty() && files.is_empty() {
        return Ok(());
    }
    let (said, whole) = child_until(until, &[paths, files].concat(), |reply| {
        for path in paths {
            // All above it, too, and what a link leads to.
            drop(path.canonicalize().and_then(std::fs::metadata));
            write_all(reply, b".");
        }
        for file in files {
            // What is no file of that kind is told by whoever needs it, and may be a FIFO.
            if std::fs::metadata(file).is_ok_and(|found| found.is_file()) {
                drop(read_file(file, MOST_BYTES));
            }
            write_all(reply, b".");
        }
    })?;
    match paths.iter().chain(files).nth(said.len()) {
        Some(path) if !whole => Err(over(path, flag)),
        _ => Ok(()),
    }
}

fn over(path: &Path, flag: &str) -> Fault {
    let path = printable(&path.to_string_lossy());
    Fault::failed(format!("run: {path}: does not answer, and the time of {flag} is over")).hint(
        "is the server of its file system there (FUSE, NFS)? does anybody write to it (FIFO)?",
    )
}

/// What a child that looks at these paths says until it ends, or until this moment; and whether it ended. One that did not is
/// killed.
fn child_until(
    until: Instant,
    paths: &[&Path],
    job: impl FnOnce(&OwnedFd),
) -> Result<(Vec<u8>, bool)> {
    let (answer, reply) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for a job")?;
    let parent = getpid();
    let pidfd = match clone(0).context("make a process", "for a job")? {
        Side::Child => {
            set_parent_process_death_signal(Some(Signal::KILL)).ok();
            if getppid() == Some(parent) && let_go(&reply, paths).is_ok() {
                job(&reply);
            }
            exit_now(0)
        }
        Side::Parent { pidfd, .. } => pidfd,
    };
    drop(reply);
    let heard = hear(&answer, until);
    pidfd_send_signal(&pidfd, Signal::KILL).ok();
    // In the middle of a file system's call it may take its time to die, or never do: then it is somebody else's child
    // when we are gone.
    let moment = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    if retry_on_intr(|| poll(&mut fds, Some(&moment))) == Ok(1) {
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok();
    }
    heard.context("hear from", "a job")
}

/// Leaves nothing open but the reply and what a path names by its descriptor. One that is never done must not hold a lock, nor
/// keep whoever reads our output waiting.
fn let_go(reply: &OwnedFd, paths: &[&Path]) -> Result<(), Errno> {
    let number = |path: &&Path| {
        let dir = path.parent()?;
        match path.to_str()? {
            "/dev/stdin" => Some(0),
            _ if dir == Path::new("/dev/fd") || dir == Path::new("/proc/self/fd") => {
                path.file_name()?.to_str()?.parse().ok()
            }
            _ => None,
        }
    };
    let mut keep: Vec<i32> = paths.iter().filter_map(number).chain([reply.as_raw_fd()]).collect();
    keep.sort_unstable();
    keep.dedup();
    close_all_but(0, &keep)
}

fn hear(answer: &OwnedFd, until: Instant) -> Result<(Vec<u8>, bool), Errno> {
    let mut said = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(answer, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok((said, false)),
            Err(Errno::INTR) => continue,
            other => other?,
        };
        match retry_on_intr(|| rustix::io::read(answer, &mut part))? {
            0 => return Ok((said, true)),
            count => said.extend_from_slice(&part[..count]),
        }
    }
}

/// Whoever does not listen any more has given up.
fn write_all(reply: &OwnedFd, mut bytes: &[u8]) {
    while let Ok(count @ 1..) = retry_on_intr(|| rustix::io::write(reply, bytes)) {
        bytes = &bytes[count..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_others_may_hang() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      23 22 0:21 / /sys/fs/fuse/connections rw - fusectl fusectl rw\n";
        assert!(!asks_others(mounts));
        for kind in [
            "fuse.sshfs host:",
            "fuseblk /dev/sdb1",
            "nfs4 server:/x",
            "9p tag",
            "autofs systemd-1",
        ] {
            assert!(asks_others(&format!("{mounts}24 22 0:40 / /mnt rw - {kind} rw\n")), "{kind}");
        }
    }
}
