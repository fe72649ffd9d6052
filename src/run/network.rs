//! Starts the program that makes the network of a run: pasta or slirp4netns.
//!
//! It runs in the user namespace of the run, as its uid 0, so that it has no right on the host that the caller
//! lacks, and in the host's network, where its sockets are. It is given the network namespace as a path, because
//! these programs close every descriptor they inherit: that of a holder, a process of ours that does nothing but be
//! in it until the program is ready. Both die with the supervisor (the death signal is set after the last change of
//! credentials, which would clear it).

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, MemfdFlags, Mode, OFlags, Uid, chown, memfd_create, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};

use super::companion::{Companion, FAILED, close_but};
use super::outcome::Reason;
use crate::fault::{Context, Fault, Result, printable};
use crate::ids::{self, Entry, Powers};
use crate::isolate::caps::{self, CapSet};
use crate::isolate::outside::{self, Helper, Publish, Resolver};
use crate::sys;
use crate::sys::exec::Strings;

/// How long a program may take until the network is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at its file.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// The network that a run gets from outside.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Which program makes it.
    pub helper: Helper,
    /// Where that lies.
    pub program: PathBuf,
    /// Ports that lead inside.
    pub published: Vec<Publish>,
    /// Who answers for names.
    pub resolver: Resolver,
}

/// Starts the program and waits until the network is there. `owner` are the ids
/// outside of who makes it, `id` is what both are inside.
///
/// # Errors
/// A host fault with what the program said.
pub(super) fn start(
    outside: &Outside,
    user: BorrowedFd<'_>,
    network: BorrowedFd<'_>,
    owner: (u32, u32),
    id: u32,
) -> Result<Companion> {
    let dir = tempfile::Builder::new()
        .prefix("sandbox-net-")
        .tempdir()
        .context("make a directory for", outside.helper.name())
        .map_err(|fault| fault.hint("TMPDIR names a directory to write to"))?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    // Root of the machine may; for others inside root is the caller.
    chown(dir.path(), Some(uid), Some(gid)).ok();
    let (holder, number) = hold(user, network, id)?;
    let started = Started::start(outside, user, id, dir.path(), &format!("/proc/{number}/ns/net"))?;
    let companion = started.wait(outside, dir.path())?;
    drop(holder);
    Ok(companion)
}

/// Which groups may send echo requests without CAP_NET_RAW (icmp(7)).
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// A process in the network of the run, and its number.
fn hold(user: BorrowedFd<'_>, network: BorrowedFd<'_>, id: u32) -> Result<(Companion, i32)> {
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for the network")?;
    let pidfd = ids::beside(Entry::Joined(user), Powers::Everything, || {
        // The program finds our namespace by our number, if we may do no more than it may itself. Nothing of
        // the payload is there yet.
        if sys::namespace::join(network).is_err() {
            return FAILED;
        }
        // Nobody may in a new network. A container may have its /proc/sys read-only: then it stays so.
        std::fs::write(PING_GROUPS, format!("{id} {id}")).ok();
        if caps::hold(CapSet::NONE).is_err() {
            return FAILED;
        }
        sys::namespace::show();
        rustix::io::write(&tell, &std::process::id().to_ne_bytes()).ok();
        close_but(Vec::new());
        loop {
            std::thread::park();
        }
    })?;
    let holder = Companion::known(Reason::Helper, pidfd);
    drop(tell);
    let mut number = [0; 4];
    match retry_on_intr(|| rustix::io::read(&told, &mut number)) {
        Ok(4) => Ok((holder, i32::from_ne_bytes(number))),
        _ => Err(Fault::host("join: the network of the run: not permitted")),
    }
}

struct Started {
    companion: Companion,
    ready: OwnedFd,
    said: File,
}

impl Started {
    fn start(
        outside: &Outside,
        user: BorrowedFd<'_>,
        id: u32,
        dir: &Path,
        netns: &str,
    ) -> Result<Self> {
        let name = outside.helper.name();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(dir, flags, Mode::empty()).context("open the directory of", name)?;
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context("open", "/dev/null")?;
        let said = memfd_create("said", MemfdFlags::CLOEXEC).context("make a file for", name)?;
        let (ready, tell) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe for", name)?;
        let words = outside.helper.arguments(netns, id, &outside.published, &outside.resolver);
        let words = std::iter::once(name).chain(words.iter().map(String::as_str)).map(OsStr::new);
        let argv = Strings::new(outside::c_words(words)?);
        let program = outside::c_words([outside.program.as_os_str()])?.remove(0);
        let environment = Strings::new(vec![CString::from(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin")]);
        let pidfd = ids::beside(Entry::Joined(user), Powers::Everything, || {
            let fds = [null.as_fd(), said.as_fd(), said.as_fd(), tell.as_fd()];
            if place(dir.as_fd(), fds).is_err() {
                return FAILED;
            }
            let Err(errno) = sys::exec::execve(&program, &argv, &environment);
            errno.raw_os_error()
        })?;
        let mut companion = Companion::known(Reason::Helper, pidfd);
        companion.vital = true;
        Ok(Self { companion, ready, said: said.into() })
    }

    /// Until it says that the network is there.
    fn wait(mut self, outside: &Outside, dir: &Path) -> Result<Companion> {
        let begun = Instant::now();
        while !self.is_ready(outside.helper, dir)? {
            let mut fds = [PollFd::from_borrowed_fd(self.companion.pidfd(), PollFlags::IN)];
            let gone = matches!(poll(&mut fds, Some(&TICK)), Ok(1..));
            if gone || begun.elapsed() > PATIENCE {
                return Err(self.complain(outside, gone));
            }
        }
        if outside.helper == Helper::Slirp4netns {
            for publish in &outside.published {
                order(dir, publish)?;
            }
        }
        Ok(self.companion)
    }

    fn is_ready(&self, helper: Helper, dir: &Path) -> Result<bool> {
        match helper {
            Helper::Pasta => {
                let file = dir.join(outside::PID_FILE);
                Ok(std::fs::read(file).is_ok_and(|text| text.ends_with(b"\n")))
            }
            Helper::Slirp4netns => {
                let mut fds = [PollFd::new(&self.ready, PollFlags::IN)];
                let nothing = Timespec::default();
                let told = poll(&mut fds, Some(&nothing)).context("wait for", helper.name())?;
                Ok(told > 0 && fds[0].revents().contains(PollFlags::IN))
            }
        }
    }

    /// What it said, as a fault.
    fn complain(&mut self, outside: &Outside, gone: bool) -> Fault {
        let mut said = String::new();
        self.said.rewind().ok();
        self.said.read_to_string(&mut said).ok();
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let why = match lines.len() {
            0 if gone => "it ended without a word".to_owned(),
            0 => "it did not make the network within 10 seconds".to_owned(),
            all => printable(&lines[all.saturating_sub(3)..].join("; ")),
        };
        let fault = Fault::host(format!("make the network: {}: {why}", outside.program.display()));
        if said.contains("/dev/net/tun") {
            return fault.hint("/dev/net/tun must be there for everybody: `modprobe tun`, `chmod 0666 /dev/net/tun`; in Docker: --device /dev/net/tun");
        }
        fault.hint("use --net none or --net host; for ports: is one of them taken, or below 1024?")
    }
}

/// What the program finds: descriptors 0 to 3 and no others, the directory as its working directory, signals.
fn place(dir: BorrowedFd<'_>, fds: [BorrowedFd<'_>; 4]) -> std::result::Result<(), Errno> {
    rustix::process::fchdir(dir)?;
    // Out of the way first, so that none is overwritten before it is copied.
    let fds = fds.map(|fd| fcntl_dupfd_cloexec(fd, 16));
    for (number, fd) in (0..).zip(fds) {
        sys::exec::copy_to(sys::exec::leave_open(fd?).as_raw_fd(), number, true)?;
    }
    // What we ignore and block for ourselves; some versions of pasta take an ignored SIGPIPE for an error.
    sys::signal::default(NixSignal::SIGPIPE).ok();
    SigSet::empty().thread_set_mask().ok();
    sys::exec::close_all_but(4, &[])
}

/// Has slirp4netns open a port.
fn order(dir: &Path, publish: &Publish) -> Result<()> {
    let mut answer = String::new();
    let mut ask = || -> std::io::Result<()> {
        use std::io::Write;
        let mut socket = UnixStream::connect(dir.join(outside::API_SOCKET))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(outside::slirp_order(publish).as_bytes())?;
        socket.shutdown(std::net::Shutdown::Write)?;
        socket.read_to_string(&mut answer).map(drop)
    };
    let shown = format!("port {}", publish.host);
    ask().context("publish", &shown)?;
    if answer.contains("\"error\"") {
        let answer = printable(answer.trim());
        return Err(Fault::host(format!("publish: {shown}: slirp4netns: {answer}"))
            .hint("is it taken, or below 1024?"));
    }
    Ok(())
}
