//! The process that becomes the user's command: gives up everything, then execs.
//!
//! The order matters. Descriptors come first: whatever of ours is open is a way out of the new root for a
//! symlink of a layer to /proc/self/fd/N (CVE-2024-21626). Then the session and the bounding set, while SETPCAP is
//! left; limits before capabilities; the user is changed before the capabilities are set, because that change
//! clears them; the exec last. (no_new_privs, which seccomp needs, was set before the fork.)

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::byfd;
use super::early;
use super::gate::GateEnd;
use super::init;
use super::outcome::{NOT_EXECUTABLE, NOT_FOUND};
use super::reap;
use super::spec::RunSpec;
use super::user::{self, Part, Resolved};
use super::wall;
use super::weaker;
use super::wire::{Failure, Stage, Up, send_ready, send_up};
use crate::isolate::{caps, limits};
use crate::sys;
use crate::sys::exec::Strings;
use crate::sys::namespace;
use crate::sys::process::exit_now;

/// When the root is there.
#[derive(Debug)]
pub enum Begin {
    /// It is; so is the payload's side of the terminal, if it gets one. Whoever reaps waits at the gate, if
    /// there is one, until all is given up.
    Now {
        /// The terminal.
        terminal: Option<OwnedFd>,
        /// The payload's end of the gate.
        gate: Option<GateEnd>,
    },
    /// It is, and has been since the run that is joined began; so is the terminal.
    Joined {
        /// The terminal.
        terminal: Option<OwnedFd>,
        /// The payload's end of the gate.
        gate: Option<GateEnd>,
    },
    /// When the gate says so.
    WhenTold {
        /// The payload's end of it.
        gate: GateEnd,
        /// Whether the payload's process makes the namespaces of the sandbox that are not there yet.
        namespaces: bool,
    },
}

/// Becomes the command, or tells why not.
pub fn become_command(spec: &RunSpec, wire: &OwnedFd, begin: Begin) -> ! {
    let failure = match stages(spec, wire, begin) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    send_up(wire.as_fd(), &Up::Failed(failure));
    let found = failure.stage == Stage::Exec && failure.errno != Errno::NOENT;
    exit_now(i32::from(if found { NOT_EXECUTABLE } else { NOT_FOUND }))
}

fn stages(spec: &RunSpec, wire: &OwnedFd, begin: Begin) -> Result<Infallible, Failure> {
    take_pipes(spec).map_err(Failure::at(Stage::Descriptors))?;
    descriptors(spec, wire, &begin).map_err(Failure::at(Stage::Descriptors))?;
    if matches!(begin, Begin::WhenTold { namespaces: true, .. }) {
        // Before all else that can wait, because it takes longest.
        make_namespaces(spec.own_network)?;
    }
    lead(spec).map_err(Failure::at(Stage::Session))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Here alone: PID 1 never execs, and no_new_privs keeps an exec from giving back what was given up.
    caps::limit(spec.capabilities, spec.last_capability)
        .map_err(Failure::at(Stage::Capabilities))?;
    let mut user = None;
    let mut absent = 0;
    let joined = matches!(begin, Begin::Joined { .. });
    match begin {
        Begin::Now { terminal, gate } | Begin::Joined { terminal, gate } => {
            take_terminal(spec, terminal).map_err(Failure::at(Stage::Session))?;
            user = spec.user.as_ref().map(user::resolve).transpose()?;
            let listener = give_up(spec, wire, user.as_ref(), joined.then_some(gate))?;
            if let Some(gate) = gate {
                absent = pass(gate, listener);
            }
        }
        Begin::WhenTold { gate, .. } => {
            init::name_and_network(spec, wire)?;
            match gate.await_switched() {
                Ok(Some(true)) if early::copies_up(spec) => {
                    rustix::process::chdir("/").map_err(Failure::at(Stage::CopyUp))?;
                    init::copy_up(spec)?;
                }
                Ok(Some(_)) => {}
                // It has told why.
                _ => exit_now(i32::from(super::outcome::OURS)),
            }
            let listener = give_up(spec, wire, None, None)?;
            absent = pass(gate, listener);
        }
    }
    enter(&spec.workdir).map_err(Failure::at(Stage::Workdir))?;
    // Not before PID 1 knows that we are ready: a signal that has come to all of the caller's group ends us here, and how we
    // ended is told.
    unblock_signals().map_err(Failure::at(Stage::Session))?;
    let environment = environment(spec, user.as_ref());
    let candidates = spec.candidates.get(absent..).unwrap_or_default();
    match spec.by_descriptor {
        true => byfd::exec(candidates, &spec.argv, &environment),
        false => exec(candidates, &spec.argv, &environment),
    }
    .map_err(Failure::at(Stage::Exec))
}

/// A session of its own. One whose stopping is told leads a group in that of the process that reaps it instead: the leader of
/// a session has nobody in it who could continue it, and is not stopped by a key.
fn lead(spec: &RunSpec) -> Result<(), Errno> {
    match spec.suspends() {
        true => rustix::process::setpgid(None, None),
        false => rustix::process::setsid().map(drop),
    }
}

/// In one call, because each takes the kernel a while; if it fails, the network may be what is refused.
fn make_namespaces(network: bool) -> Result<(), Failure> {
    let Err(errno) = namespace::unshare_others(network) else { return Ok(()) };
    namespace::unshare_others(false).map_err(Failure::at(Stage::Namespaces))?;
    if network { Err(Failure::at(Stage::Network)(errno)) } else { Ok(()) }
}

/// Everything that the command must not have: signals' leftovers, ids, capabilities, system calls. After
/// this only what the filter of the run allows can be done. `joined`: the gate, if it has one, of who joins a run. Gives
/// the listener of calls that are remembered.
fn give_up(
    spec: &RunSpec,
    wire: &OwnedFd,
    user: Option<&Resolved>,
    joined: Option<Option<GateEnd>>,
) -> Result<Option<OwnedFd>, Failure> {
    // Before a limit of descriptors, because it takes two.
    wall::put_up(spec).map_err(Failure::at(Stage::Wall))?;
    limits::apply(&spec.limits).map_err(Failure::at(Stage::Limits))?;
    if let Some(user) = user {
        change_user(user).map_err(Part::Change.failed())?;
    }
    let inside_root = user.is_none_or(|user| user.uid == 0);
    let left = if inside_root { spec.capabilities } else { caps::CapSet::NONE };
    caps::hold(left).map_err(Failure::at(Stage::Capabilities))?;
    if let Some(gate) = joined {
        // After the last change of credentials, which takes both away. Nobody but PID 1 has the kernel end all that
        // is left; and who is in the run already shall not look into us before our exec (CVE-2016-9962).
        match gate {
            Some(gate) => init::die_with_parent_still(gate.wire),
            None => init::die_with_parent(),
        }
        .map_err(Failure::at(Stage::Join))?;
        reap::hide().map_err(Failure::at(Stage::Join))?;
    }
    default_signals().map_err(Failure::at(Stage::Session))?;
    let listener =
        spec.remember.as_ref().map_or(Ok(None), |asked| weaker::listen(spec, asked, wire));
    let listener = listener.map_err(Failure::at(Stage::Seccomp))?;
    let whole = spec.remember.as_ref().is_some_and(|asked| asked.whole);
    if listener.is_none() || !whole {
        sys::seccomp::load(&spec.seccomp).map_err(Failure::at(Stage::Seccomp))?;
    }
    Ok(listener)
}

/// Says that nothing is left to be given up, and waits until PID 1 has made the root. If it failed instead,
/// it has told why, and we do not live to see it. How many of the candidates it did not find.
fn pass(gate: GateEnd, listener: Option<OwnedFd>) -> usize {
    // PID 1 has the listener then. Ours goes with the exec: whoever else held it would keep callers waiting if the
    // handler dies.
    let listener = listener.map(sys::exec::leave_open);
    match send_ready(gate.wire, listener).and_then(|()| gate.await_open()) {
        Ok(Some(absent)) => usize::from(absent),
        _ => exit_now(i32::from(super::outcome::OURS)),
    }
}

/// Our pty in place of every standard descriptor that is a terminal. The session of our own keeps the
/// caller's terminal out of reach (CVE-2017-5226).
fn take_terminal(spec: &RunSpec, terminal: Option<OwnedFd>) -> Result<(), Errno> {
    let (Some(slave), Some(wanted)) = (terminal, &spec.terminal) else { return Ok(()) };
    match spec.suspends() {
        // It controls whoever reaps us already ([`init::open_terminal`]); SIGTTOU is blocked.
        true => rustix::termios::tcsetpgrp(&slave, rustix::process::getpid())?,
        false => rustix::process::ioctl_tiocsctty(&slave)?,
    }
    for (number, replace) in wanted.replaces.into_iter().enumerate() {
        if replace {
            sys::exec::copy_to(slave.as_raw_fd(), number as i32, true)?;
        }
    }
    Ok(())
}

/// Pipes of ours, in place of what the caller has there.
fn take_pipes(spec: &RunSpec) -> Result<(), Errno> {
    for (number, end) in (0..).zip(&spec.pipes) {
        if let Some(end) = end {
            sys::exec::copy_to(end.as_raw_fd(), number, true)?;
        }
    }
    Ok(())
}

fn change_user(user: &Resolved) -> Result<(), Errno> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // A map of one id has setgroups denied: there are no groups to take either.
        Err(Errno::PERM) if user.uid == 0 || groups.is_empty() => {}
        other => other?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// The environment as planned; with `--user`, HOME, USER and LOGNAME are that user's. One that is not inside
/// root's any more was asked for, and stays. A number without an entry has no name, and `/` as its home.
fn environment(spec: &RunSpec, user: Option<&Resolved>) -> Strings {
    let mut environment = spec.environment.clone();
    if let Some(user) = user {
        let of_ordinary = spec.ordinary.as_ref().and_then(|ordinary| ordinary.home.as_deref());
        let home = of_ordinary.and_then(Path::to_str).or(user.home.as_deref());
        let home = home.or((user.uid != 0).then_some("/"));
        let name = user.name.as_deref();
        for (root, key, value) in [
            (c"HOME=/root", "HOME", home),
            (c"USER=root", "USER", name),
            (c"LOGNAME=root", "LOGNAME", name),
        ] {
            let Some(at) = environment.iter().position(|entry| entry.as_c_str() == root) else {
                continue;
            };
            match value.map(|value| CString::new(format!("{key}={value}"))) {
                Some(Ok(entry)) => environment[at] = entry,
                _ if user.uid == 0 => {}
                _ => drop(environment.remove(at)),
            }
        }
    }
    Strings::new(environment)
}

/// Nothing above 2 stays open but what the caller asked to keep, and until the exec the wire, the terminal
/// or the gate, and what tells of the exec.
fn descriptors(spec: &RunSpec, wire: &OwnedFd, begin: &Begin) -> Result<(), Errno> {
    let (terminal, gate) = match begin {
        Begin::Now { terminal, gate } | Begin::Joined { terminal, gate } => {
            (terminal.as_ref().map(AsFd::as_fd), *gate)
        }
        Begin::WhenTold { gate, .. } => (None, Some(*gate)),
    };
    let executing = spec.executing.as_ref().map(AsFd::as_fd);
    let gate = [gate.map(|gate| gate.wire), gate.map(|gate| gate.opens)];
    let ours = [Some(wire.as_fd()), terminal, gate[0], gate[1], executing];
    let ours = ours.into_iter().flatten().map(|fd| fd.as_raw_fd());
    let mut keep: Vec<_> = spec.preserve_fds.iter().copied().chain(ours).collect();
    keep.sort_unstable();
    keep.dedup();
    sys::exec::close_all_but(3, &keep)
}

/// The working directory; never one outside the new root (CVE-2024-21626), to which a standard descriptor
/// may lead. `/` cannot be one.
fn enter(dir: &Path) -> Result<(), Errno> {
    rustix::process::chdir(dir)?;
    if dir == Path::new("/") {
        return Ok(());
    }
    let here = rustix::process::getcwd(Vec::new())?;
    if here.to_bytes().starts_with(b"/") { Ok(()) } else { Err(Errno::XDEV) }
}

/// Handlers do not survive an exec, but ignored signals do: the runtime ignores SIGPIPE, and we ignore SIGXFSZ.
fn default_signals() -> Result<(), Errno> {
    let convert = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    sys::signal::default(NixSignal::SIGPIPE).map_err(convert)?;
    sys::signal::default(NixSignal::SIGXFSZ).map_err(convert)
}

/// The mask survives an exec, too.
fn unblock_signals() -> Result<(), Errno> {
    let convert = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(convert)
}

/// Tries the candidates as execvp(3) does: a missing one is passed over, one that may not be executed is
/// remembered.
fn exec(
    candidates: &[CString],
    argv: &Strings,
    environment: &Strings,
) -> Result<Infallible, Errno> {
    let mut answer = Errno::NOENT;
    for path in candidates {
        let Err(errno) = sys::exec::execve(path, argv, environment);
        match errno {
            Errno::NOENT if exists(path) => return Err(Errno::LIBBAD),
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => answer = errno,
            _ => return Err(errno),
        }
    }
    Err(answer)
}

/// A file that is there and still gives ENOENT lacks its interpreter or its dynamic loader.
fn exists(path: &CString) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
}
