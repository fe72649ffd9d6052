//! The child: from fresh namespaces to a switched root, a payload and PID 1.
//!
//! A straight list of stages. Who we are at each: until `become_root` a process with all capabilities in
//! its own user namespace and the caller's ids; then inside root; after the fork the payload goes on in
//! [`super::payload`] and we become [`super::reap`]. A failed stage is told on the wire and ends us; so does
//! the supervisor's death (PDEATHSIG, set again after every change of credentials, which clears it).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change,
};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;

use super::early;
use super::gate::{GateEnd, NewGate};
use super::hold;
use super::payload::{self, Begin};
use super::program;
use super::reap::{self, Gate, Started};
use super::spec::{RunSpec, Upper};
use super::user;
use super::weaker::{self, Switched};
use super::wire::{Down, Failure, Stage, Up, receive_down, send_up};
use crate::ids::{self, Mode as IdMode};
use crate::isolate::net;
use crate::rootfs::apply::{self, Failed};
use crate::rootfs::copy_up;
use crate::rootfs::overlay::{Base, Writable, assemble};
use crate::sys::exec::leave_open;
use crate::sys::namespace;
use crate::sys::process::{Side, clone, exit_now};
use crate::sys::processor::Here;
use crate::sys::title;
use crate::tree::xattr;

/// Runs the child of a run to its end. The working directory is base_dir, `store` a descriptor of it.
/// `entered`: whether it was born into its cgroup, if it has one.
pub fn child(mut spec: RunSpec, store: BorrowedFd<'_>, wire: &OwnedFd, entered: bool) -> ! {
    // Before anybody inside can see this process, or one that it makes.
    title::hide_arguments();
    // By which those inside know what they are in ([`crate::remedy::Host`]), whatever the program is called.
    rustix::thread::set_name(c"sandbox").ok();
    let begun = enter_cgroup(&spec, entered);
    if let Err(failure) = begun.and_then(|()| stages(&mut spec, store, wire)) {
        send_up(wire.as_fd(), &Up::Failed(failure));
    }
    exit_now(i32::from(super::outcome::OURS));
}

fn stages(spec: &mut RunSpec, store: BorrowedFd<'_>, wire: &OwnedFd) -> Result<(), Failure> {
    die_with_parent().map_err(Failure::at(Stage::Life))?;
    // Modes in the plan are meant as they stand; the payload gets its usual mask back.
    rustix::process::umask(Mode::empty());
    weaker::keyring(spec, wire).map_err(Failure::at(Stage::Session))?;
    let place = hold::place(spec).map_err(Failure::at(Stage::Descriptors))?;
    let mut early = map_ids(spec, wire)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(Failure::at(Stage::Private))?;
    let base = Base::clone_cwd(store, spec.nested).map_err(Failure::at(Stage::Base))?;
    let mut lowers = open_lowers(spec, &base)?;
    match spec.id_map.mode {
        IdMode::Single => await_go(wire).map_err(Failure::at(Stage::Upper))?,
        // No further without ids: overlayfs makes directories of mode 0 that only capabilities open, and those do not count
        // for an owner who is not in the map.
        IdMode::Subuid => {
            await_go(wire).map_err(Failure::at(Stage::Ids))?;
            ask_for_network(spec, wire).map_err(Failure::at(Stage::Network))?;
        }
        IdMode::Range | IdMode::Identity => {}
    }
    let run = base.open(&spec.run_dir).map_err(Failure::at(Stage::Upper))?;
    if spec.id_map.mode == IdMode::Range {
        apply::prepare_binds(&spec.plan.ops, &mut spec.prepared, &base, run.as_fd())
            .map_err(|failed| at_step(Stage::Prepare, failed))?;
    }
    become_root(spec, wire).map_err(Failure::at(Stage::Ids))?;
    if early.is_none() && early::possible(spec) {
        early = Some(early::start(spec, wire, false)?);
    }
    if let Some(scaffold) = &spec.scaffold {
        lowers.push(scaffold.make().map_err(Failure::at(Stage::Upper))?);
    }
    let root = assemble_root(spec, &base, &lowers, &run)?;

    let mut given = std::mem::take(&mut spec.prepared);
    weaker::proc(spec, &mut given, wire)?;
    let prepared = apply::prepare(&spec.plan.ops, given, &base, run.as_fd(), spec.way)
        .map_err(|failed| at_step(Stage::Prepare, failed))?;
    weaker::enter_root(&base, &root).map_err(Failure::at(Stage::Place))?;
    let done = apply::apply_devices(&spec.plan.ops, &prepared)
        .map_err(|failed| at_step(Stage::Mount, failed))?;
    let switched = switch_root(spec, &root, wire, done)?;
    let done = match &switched {
        Switched::Pivoted(old_root) if old_root.is_mounted() => {
            apply::cover(&spec.plan.ops, done).map_err(|failed| at_step(Stage::Mount, failed))?
        }
        _ => done,
    };
    early = early::tell(early, &switched)?;
    let applied = apply::apply(&spec.plan.ops, prepared, done)
        .map_err(|failed| at_step(Stage::Mount, failed))?;
    for (step, levels) in applied.made {
        send_up(wire.as_fd(), &Up::Made(step as u32, levels));
    }
    weaker::missed(spec, &applied.missed, wire);
    if early.is_none() || !early::copies_up(spec) {
        copy_up(spec)?;
    }
    user::settle(spec)?;
    let absent = check_program(spec)?;
    hold::root(spec, &root, wire).map_err(Failure::at(Stage::Descriptors))?;
    if spec.want_root {
        send_up(wire.as_fd(), &Up::Root(root));
    }
    if spec.suspends() {
        rustix::process::setsid().map_err(Failure::at(Stage::Session))?;
    }
    let terminal = open_terminal(spec, wire).map_err(Failure::at(Stage::Terminal))?;
    if spec.outside.is_some() {
        await_go(wire).map_err(Failure::at(Stage::Network))?;
    }
    if let Switched::Pivoted(old_root) = switched {
        old_root.unmount().map_err(Failure::at(Stage::OldRoot))?;
    }
    let started = match early {
        Some(started) => started,
        None => {
            name_and_network(spec, wire)?;
            start(spec, wire, terminal)?
        }
    };
    reap::run(spec, wire, Started { absent, ..started }, place)
}

/// The view of cgroups is made here, with the run's own as its root.
fn enter_cgroup(spec: &RunSpec, entered: bool) -> Result<(), Failure> {
    let Some(cgroup) = &spec.cgroup else { return Ok(()) };
    if !entered {
        cgroup.enter().map_err(Failure::at(Stage::Cgroup))?;
    }
    namespace::unshare_cgroup().map_err(Failure::at(Stage::Cgroup))
}

fn assemble_root(
    spec: &RunSpec,
    base: &Base,
    lowers: &[OwnedFd],
    run: &OwnedFd,
) -> Result<OwnedFd, Failure> {
    let memory = memory_upper(spec.upper).map_err(Failure::at(Stage::Upper))?;
    let writable = match &memory {
        Some(room) => Writable { dir: room.as_fd(), upper: "fs", work: "work" },
        None => Writable { dir: run.as_fd(), upper: "layer/fs", work: "work" },
    };
    // no_new_privs takes all effect from set-id bits and capabilities of files, and the kernel refuses to execute a file that
    // sets one which is not in the bounding set (execve(2), EPERM), as Debian's ping does. Where nosuid holds it does not look.
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    if spec.read_only_root {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    assemble(base, lowers, Some(writable), attributes, spec.way)
        .map_err(Failure::at(Stage::Overlay))
}

/// With the old root in the place that no path leads to, if the steps that are `done` have made it.
fn switch_root(
    spec: &RunSpec,
    root: &OwnedFd,
    wire: &OwnedFd,
    done: usize,
) -> Result<Switched, Failure> {
    let aside = apply::beneath_devpts(&spec.plan.ops, done).map_err(Failure::at(Stage::Place))?;
    weaker::switch_root(spec, root, wire, aside.as_deref())
}

/// Copies up what is to be there before the command.
pub(super) fn copy_up(spec: &RunSpec) -> Result<(), Failure> {
    copy_up::execute(&spec.copy_up).map_err(|failed| at_step(Stage::CopyUp, failed))
}

fn at_step(stage: Stage, failed: Failed) -> Failure {
    Failure { stage, detail: failed.op as u32, errno: failed.errno }
}

/// A supervisor that died before this was set sends no signal: then its end of the wire is closed, and
/// nothing comes of [`await_go`].
pub(super) fn die_with_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

/// The same, once the parent has said all that it has to say on this wire.
pub(super) fn die_with_parent_still(wire: impl AsFd) -> Result<(), Errno> {
    die_with_parent()?;
    let mut fds = [PollFd::new(&wire, PollFlags::empty())];
    if poll(&mut fds, Some(&Timespec::default()))? > 0 {
        exit_now(i32::from(super::outcome::OURS));
    }
    Ok(())
}

/// A `single` map we write ourselves, without a round trip, and go on with what needs no run directory,
/// while the supervisor makes that; all other maps the supervisor writes, who then tells us. Those of `subuid` take
/// longest, because two programs write them: what needs no ids is done before.
///
/// The network is made where nothing waits for it: by the payload's process while we mount, or by us while
/// newuidmap and newgidmap work. In the first case so are the namespaces of [`early::makes_namespaces`].
fn map_ids(spec: &RunSpec, wire: &OwnedFd) -> Result<Option<Started>, Failure> {
    if spec.id_map.mode == IdMode::Single {
        let map = spec.id_map.known_as(spec.first_id());
        ids::write_own_map(&map).map_err(Failure::at(Stage::Ids))?;
        if early::makes_namespaces(spec) {
            return early::start(spec, wire, true).map(Some);
        }
        own_network(spec)?;
        ask_for_network(spec, wire).map_err(Failure::at(Stage::Network))?;
        return Ok(None);
    }
    own_network(spec)?;
    if spec.id_map.mode == IdMode::Subuid {
        return early::possible(spec).then(|| early::start(spec, wire, false)).transpose();
    }
    await_go(wire).map_err(Failure::at(Stage::Ids))?;
    ask_for_network(spec, wire).map_err(Failure::at(Stage::Network))?;
    Ok(None)
}

/// Hands over what a program outside needs to fill our network; [`Down::Go`] tells that it has.
fn ask_for_network(spec: &RunSpec, wire: &OwnedFd) -> Result<(), Errno> {
    if spec.outside.is_none() {
        return Ok(());
    }
    for path in ["/proc/self/ns/user", "/proc/self/ns/net"] {
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        send_up(wire.as_fd(), &Up::Namespace(fd));
    }
    Ok(())
}

fn own_network(spec: &RunSpec) -> Result<(), Failure> {
    if !spec.own_network {
        return Ok(());
    }
    namespace::unshare_network().map_err(Failure::at(Stage::Network))
}

/// Waits until the supervisor has done its part.
fn await_go(wire: &OwnedFd) -> Result<(), Errno> {
    match receive_down(wire.as_fd())? {
        Some(Down::Go) => Ok(()),
        // The supervisor failed or died: it knows why, and nobody else is there to be told.
        _ => exit_now(i32::from(super::outcome::OURS)),
    }
}

fn open_lowers(spec: &RunSpec, base: &Base) -> Result<Vec<OwnedFd>, Failure> {
    spec.lowers
        .iter()
        .enumerate()
        .map(|(index, path)| {
            base.open(path).map_err(|errno| Failure {
                stage: Stage::Layer,
                detail: index as u32,
                errno,
            })
        })
        .collect()
}

/// Becomes uid 0 and gid 0 inside. In `single` and `subuid` mode the caller is that already, and keeps its
/// supplementary groups: dropping them could open files that deny a group (CVE-2018-7169). In `range` mode
/// the host's root becomes an unprivileged id, without any group of the host's.
pub(super) fn become_root(spec: &RunSpec, wire: &OwnedFd) -> Result<(), Errno> {
    if matches!(spec.id_map.mode, IdMode::Range | IdMode::Identity) {
        if spec.id_map.mode == IdMode::Range {
            rustix::thread::set_thread_groups(&[])?;
        }
        let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        die_with_parent_still(wire)?;
    }
    Ok(())
}

/// An upper in memory: a tmpfs that no path leads to.
fn memory_upper(upper: Upper) -> Result<Option<OwnedFd>, Errno> {
    let Upper::Tmpfs(size) = upper else { return Ok(None) };
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(size) = size {
        fsconfig_set_string(&fs, "size", size.to_string())?;
    }
    fsconfig_create(&fs)?;
    let room = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    mkdirat(&room, "fs", Mode::from_raw_mode(0o755))?;
    // Else overlayfs mounts all the same, and answers EIO to whoever removes a directory of a layer.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    xattr::try_user(openat(&room, "fs", flags, Mode::empty())?.as_fd())?;
    mkdirat(&room, "work", Mode::RWXU)?;
    Ok(Some(room))
}

/// What needs no root: the host name, and the loopback device, whose start takes the kernel a while.
pub(super) fn name_and_network(spec: &RunSpec, wire: &OwnedFd) -> Result<(), Failure> {
    weaker::host_name(spec, wire).map_err(Failure::at(Stage::Hostname))?;
    if spec.own_network {
        net::loopback_up().map_err(Failure::at(Stage::Loopback))?;
    }
    Ok(())
}

/// Refuses a command that is a magic link of /proc, while we may still read every file. A relative one is
/// looked for where the payload will be; whether it may be there is for the payload to find out. How many of the first
/// candidates are not there.
pub(super) fn check_program(spec: &RunSpec) -> Result<u8, Failure> {
    let enter = |dir| rustix::process::chdir(dir).map_err(Failure::at(Stage::Workdir));
    let relative = spec.candidates.iter().any(|path| path.to_bytes().first() != Some(&b'/'));
    if relative {
        enter(spec.workdir.as_path())?;
    }
    let check = |path: &CString| program::check(path, &spec.workdir);
    let checked: Result<Vec<_>, _> = spec.candidates.iter().map(check).collect();
    let checked = checked.map_err(Failure::at(Stage::Exec))?;
    if relative {
        enter(Path::new("/"))?;
    }
    let absent = checked.iter().take_while(|there| !**there).count();
    Ok(u8::try_from(absent).unwrap_or(u8::MAX))
}

/// A pty of the sandbox's own devpts; the master goes to the supervisor, the slave is the payload's. The
/// slave is opened by TIOCGPTPEER, not by a path that a layer could have forged (CVE-2025-52565). Where the payload's
/// stopping is told, it controls this process, which leads the session then.
pub(super) fn open_terminal(spec: &RunSpec, wire: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let Some(terminal) = &spec.terminal else { return Ok(None) };
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &terminal.settings)?;
    rustix::termios::tcsetwinsize(&slave, terminal.size)?;
    if spec.suspends() {
        rustix::process::ioctl_tiocsctty(&slave)?;
    }
    send_up(wire.as_fd(), &Up::Terminal(master));
    Ok(Some(slave))
}

/// Makes the payload's process when the root is ready.
fn start(spec: &RunSpec, wire: &OwnedFd, terminal: Option<OwnedFd>) -> Result<Started, Failure> {
    // Before the payload exists, because one with SYS_PTRACE could be faster than we are.
    reap::hide().map_err(Failure::at(Stage::Fork))?;
    let (payload, gate) = fork_at_gate(spec, |gate| {
        payload::become_command(spec, wire, Begin::Now { terminal, gate })
    })?;
    Ok(Started { payload, gate, absent: 0, joined: false })
}

/// Makes the payload's process when all is there, with a gate if it has a listener to hand over.
pub(super) fn fork_at_gate(
    spec: &RunSpec,
    child: impl FnOnce(Option<GateEnd>),
) -> Result<(Pid, Option<Gate>), Failure> {
    let gate = spec.remember.as_ref().map(|_| NewGate::new().map_err(Failure::at(Stage::Fork)));
    let mut gate = gate.transpose()?;
    let here = Here::now(spec.processors);
    let (payload, pidfd) = fork(here, || child(gate.take().map(NewGate::theirs)))?;
    leave_open(pidfd);
    if gate.is_some() {
        here.send_away(payload);
    }
    Ok((payload, gate.map(|gate| Gate { end: gate.ours(), joins: None })))
}

pub(super) fn fork(here: Here, child: impl FnOnce()) -> Result<(Pid, OwnedFd), Failure> {
    // Once for both processes.
    rustix::thread::set_no_new_privs(true).map_err(Failure::at(Stage::NoNewPrivs))?;
    reap::block_signals().map_err(Failure::at(Stage::Fork))?;
    match clone(0).map_err(Failure::at(Stage::Fork))? {
        Side::Child => {
            here.give_way();
            child();
            exit_now(i32::from(super::outcome::OURS))
        }
        Side::Parent { child, pidfd } => Ok((child, pidfd)),
    }
}
