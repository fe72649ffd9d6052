//! What may hang for ever, done by a child that is given up on: a file system of a host (FUSE, NFS) whose server does not
//! answer, a FIFO that nobody writes to. Whoever waits there itself hears of no time that is over.

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitId, WaitIdOptions, getpid, getppid, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

use crate::fault::{Context, Fault, Result, printable};
use crate::sys::exec::close_all_but;
use crate::sys::process::{Side, clone, exit_now};

/// How long the set-up of a run is waited for, unless another time is asked for: a machine under load may take seconds, and what
/// hangs takes for ever.
pub const SETUP: Duration = Duration::from_secs(30);

/// How long it is waited for, of what was asked for: 0 is for ever.
pub fn setup(asked: Option<Duration>) -> Option<Duration> {
    Some(asked.unwrap_or(SETUP)).filter(|time| !time.is_zero())
}

/// A moment at which what is waited for is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Until {
    at: Instant,
    flag: &'static str,
}

impl Until {
    /// The end of the time that a command has (`--timeout`), if that is limited.
    pub fn timeout(since: Instant, time: Option<Duration>) -> Option<Self> {
        time.and_then(|time| since.checked_add(time)).map(|at| Self { at, flag: "--timeout" })
    }

    /// The end of the time that its set-up has (`--setup-timeout`), if that is limited: 0 is for ever.
    pub fn setup(since: Instant, time: Option<Duration>) -> Option<Self> {
        let time = time.filter(|time| !time.is_zero());
        time.and_then(|time| since.checked_add(time)).map(|at| Self { at, flag: "--setup-timeout" })
    }
}

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
pub fn read_file_until(file: &Path, most: u64, until: Until) -> Result<Vec<u8>> {
    if is_near(file) && is_file(file) {
        return read_file(file, most).context("read", file.display());
    }
    let (said, whole) = child_until(until, &[file], |reply| match read_file(file, most) {
        // The first byte tells that there is no error.
        Ok(content) => write_all(reply, &[b"+", &*content].concat()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
            write_all(reply, &[b"-".as_slice(), &errno.to_ne_bytes()].concat());
        }
    })?;
    match said.split_first() {
        _ if !whole => Err(over(file, until)),
        Some((b'+', content)) => Ok(content.to_vec()),
        Some((_, errno)) => {
            let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
            Err(Errno::from_raw_os_error(errno)).context("read", file.display())
        }
        None => Err(Fault::failed(format!("read: {}: the reader was killed", file.display()))),
    }
}

/// Looks at each of these paths, and into those that are to be read, and forgets what was found. This process must have one
/// thread.
///
/// # Errors
/// Failed, with the path, if one of them has not answered when the time is over.
pub fn answer_until(paths: &[&Path], files: &[&Path], until: Until) -> Result<()> {
    let (paths, files) = (&*far(paths), &*far(files));
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
            if is_file(file) {
                drop(read_file(file, MOST_BYTES));
            }
            write_all(reply, b".");
        }
    })?;
    match paths.iter().chain(files).nth(said.len()) {
        Some(path) if !whole => Err(over(path, until)),
        _ => Ok(()),
    }
}

/// Those for which it may be that nobody answers.
fn far<'p>(paths: &[&'p Path]) -> Vec<&'p Path> {
    let far: Vec<_> = paths.iter().copied().filter(|path| !is_near(path)).collect();
    let alone = far.is_empty() || !others_mounted();
    if alone { Vec::new() } else { far }
}

/// Whether a file system is mounted that asks a server or a program: without one, what is not near (tmpfs, btrfs, overlay) does
/// not hang either. Only the mounts of this namespace are read, which takes some tens of microseconds; a child hundreds.
fn others_mounted() -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").map_or(true, |text| asks_others(&text))
}

/// The same of the text of mountinfo (proc(5)).
fn asks_others(mounts: &str) -> bool {
    const OTHERS: [&str; 12] = [
        "fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "autofs", "virtiofs", "lustre", "gfs2",
        "ocfs2",
    ];
    let asks = |line: &str| {
        let kind = line.split_once(" - ").map_or("", |(_, rest)| rest);
        // The control files of FUSE and of NFS's server are the kernel's own.
        !matches!(kind.split(' ').next(), Some("fusectl" | "nfsd"))
            && OTHERS.iter().any(|other| kind.starts_with(other))
    };
    mounts.lines().any(asks)
}

fn is_file(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file())
}

/// Whether nobody has to be asked for what is at a path, so that no child is needed to do it: the kernel has all of the way in
/// its memory (Linux 5.12), and what is there lies on a device of this machine. Of a file system without one (NFS, FUSE, but
/// tmpfs and btrfs, too) it is not known.
fn is_near(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(found) = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) else {
        return false;
    };
    let look = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(&found, c"", look, StatxFlags::TYPE).is_ok_and(|stat| stat.stx_dev_major != 0)
}

fn over(path: &Path, until: Until) -> Fault {
    let path = printable(&path.to_string_lossy());
    let flag = until.flag;
    let hint =
        "is the server of its file system there (FUSE, NFS)? does anybody write to it (FIFO)?";
    let fault =
        Fault::failed(format!("run: {path}: does not answer, and the time of {flag} is over"));
    match flag {
        "--setup-timeout" => {
            fault.hint(format!("{hint} --setup-timeout T waits longer, 0 for as long as it takes"))
        }
        _ => fault.hint(hint),
    }
}

/// What a child that looks at these paths says until it ends, or until this moment; and whether it ended. One that did not is
/// killed.
fn child_until(
    until: Until,
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
    let heard = hear(&answer, until.at);
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
        for kind in
            ["fuse.sshfs host:", "fuseblk /dev/sdb1", "nfs4 server:/x", "9p tag", "autofs x"]
        {
            assert!(asks_others(&format!("{mounts}24 22 0:40 / /mnt rw - {kind} rw\n")), "{kind}");
        }
    }
}
