//! The wire between the supervisor and the child: fixed-size messages on a socket pair, no allocation.
//!
//! Down go `Go` (the id maps are written) and signals to forward; up come failures, the terminal and the
//! payload's end. A message is one datagram of SOCK_SEQPACKET, so that PID 1 and the payload, which share
//! the child's end until the exec, cannot mix their words. When either side is gone the other one reads
//! end-of-file.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::supervisor::{HELD, Held};
use super::weaker::{self, Weaker};

/// Which part of the set-up is being done; the parent makes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Writing or awaiting the id maps, becoming inside root.
    Ids,
    /// Making all mounts private.
    Private,
    /// Cloning the mount of base_dir.
    Base,
    /// Opening a layer; the detail is its index.
    Layer,
    /// Opening or making the upper.
    Upper,
    /// Mounting the overlay.
    Overlay,
    /// Taking what a mount step needs of the host; the detail is the step.
    Prepare,
    /// Switching the root.
    Root,
    /// A mount step in the new root; the detail is its index.
    Mount,
    /// Copying up files before the command; the detail is the place.
    CopyUp,
    /// Making the namespaces of IPC and of the host name, or joining them.
    Namespaces,
    /// Making the network namespace, or joining the one that the payload's process has made.
    Network,
    /// Setting the host name.
    Hostname,
    /// Bringing the loopback device up.
    Loopback,
    /// Opening the terminal.
    Terminal,
    /// Making the payload's process.
    Fork,
    /// The payload's session and standard descriptors.
    Session,
    /// Resource limits.
    Limits,
    /// The working directory.
    Workdir,
    /// The user inside.
    User,
    /// Capabilities.
    Capabilities,
    /// no_new_privs.
    NoNewPrivs,
    /// The seccomp filter.
    Seccomp,
    /// The descriptors that the payload may keep.
    Descriptors,
    /// The program itself.
    Exec,
    /// Entering the cgroup of the run.
    Cgroup,
    /// Joining a run that stays.
    Join,
    /// The run that was joined has ended, and the command with it.
    Over,
    /// Landlock.
    Wall,
    /// Putting the overlay where it can become the root, or over the old one.
    Place,
    /// Taking the old root away.
    OldRoot,
    /// Binding the child's life to the supervisor's.
    Life,
}

const STAGES: [Stage; 32] = [
    Stage::Ids,
    Stage::Private,
    Stage::Base,
    Stage::Layer,
    Stage::Upper,
    Stage::Overlay,
    Stage::Prepare,
    Stage::Root,
    Stage::Mount,
    Stage::CopyUp,
    Stage::Namespaces,
    Stage::Network,
    Stage::Hostname,
    Stage::Loopback,
    Stage::Terminal,
    Stage::Fork,
    Stage::Session,
    Stage::Limits,
    Stage::Workdir,
    Stage::User,
    Stage::Capabilities,
    Stage::NoNewPrivs,
    Stage::Seccomp,
    Stage::Descriptors,
    Stage::Exec,
    Stage::Cgroup,
    Stage::Join,
    Stage::Over,
    Stage::Wall,
    Stage::Place,
    Stage::OldRoot,
    Stage::Life,
];

/// A stage that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub stage: Stage,
    /// An index, where the stage has several steps.
    pub detail: u32,
    /// The kernel's answer.
    pub errno: Errno,
}

impl Failure {
    /// A failure of a stage that is one step.
    pub fn at(stage: Stage) -> impl Fn(Errno) -> Self {
        move |errno| Self { stage, detail: 0, errno }
    }
}

/// What the child tells.
#[derive(Debug)]
pub enum Up {
    /// The set-up failed; the child ends.
    Failed(Failure),
    /// The terminal's master side comes along.
    Terminal(OwnedFd),
    /// The root of the overlay comes along, to copy results out of.
    Root(OwnedFd),
    /// The handler of remembered owners has begun; its journal comes along.
    Journal(OwnedFd),
    /// The payload ended, with the status of wait(2).
    Exited(i32),
    /// The payload was stopped by a signal. Of a spec that [suspends](super::spec::RunSpec::suspends).
    Stopped,
    /// A protection that this host refuses, and for which something weaker stands in.
    Weaker(Weaker),
    /// What those need who join a run that stays.
    Held(Held, OwnedFd),
    /// A namespace for what makes the network: the user namespace, then the network namespace.
    Namespace(OwnedFd),
    /// PID 1 hears the supervisor from now on.
    Begun,
    /// The place of a mount step was made in the upper: the index of the step, and how many components of its path.
    Made(u32, u32),
}

/// What the supervisor tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// The id maps are written.
    Go,
    /// Send this signal to the payload.
    Signal(i32),
    /// Send this signal to the payload's whole process group.
    SignalGroup(i32),
}

const LENGTH: usize = 12;
type Packet = [u8; LENGTH];

fn packet(tag: u8, stage: u8, detail: u32, value: i32) -> Packet {
    let mut packet = [0; LENGTH];
    packet[0] = tag;
    packet[1] = stage;
    packet[4..8].copy_from_slice(&detail.to_ne_bytes());
    packet[8..12].copy_from_slice(&value.to_ne_bytes());
    packet
}

fn detail(packet: &Packet) -> u32 {
    u32::from_ne_bytes([packet[4], packet[5], packet[6], packet[7]])
}

fn value(packet: &Packet) -> i32 {
    i32::from_ne_bytes([packet[8], packet[9], packet[10], packet[11]])
}

/// Makes the pair: the supervisor's end, the child's end. Both are close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends what the child has to tell; a supervisor that is gone needs no answer.
pub fn send_up(wire: BorrowedFd<'_>, message: &Up) {
    let (packet, fd) = match message {
        Up::Failed(failure) => {
            let errno = failure.errno.raw_os_error();
            (packet(1, failure.stage as u8, failure.detail, errno), None)
        }
        Up::Terminal(fd) => (packet(2, 0, 0, 0), Some(fd.as_fd())),
        Up::Root(fd) => (packet(3, 0, 0, 0), Some(fd.as_fd())),
        Up::Journal(fd) => (packet(7, 0, 0, 0), Some(fd.as_fd())),
        Up::Exited(status) => (packet(4, 0, 0, *status), None),
        Up::Weaker(weaker) => (packet(5, *weaker as u8, 0, 0), None),
        Up::Held(what, fd) => (packet(6, *what as u8, 0, 0), Some(fd.as_fd())),
        Up::Namespace(fd) => (packet(11, 0, 0, 0), Some(fd.as_fd())),
        Up::Begun => (packet(10, 0, 0, 0), None),
        Up::Stopped => (packet(12, 0, 0, 0), None),
        Up::Made(step, levels) => (packet(13, 0, *step, *levels as i32), None),
    };
    // The supervisor's death is handled by PDEATHSIG and by end-of-file.
    send(wire, &packet, fd).ok();
}

/// Sends what the supervisor has to tell.
///
/// # Errors
/// EPIPE when the child is gone.
pub fn send_down(wire: BorrowedFd<'_>, message: Down) -> Result<(), Errno> {
    let packet = match message {
        Down::Go => packet(1, 0, 0, 0),
        Down::Signal(signal) => packet(2, 0, 0, signal),
        Down::SignalGroup(signal) => packet(3, 0, 0, signal),
    };
    send(wire, &packet, None)
}

fn send(wire: BorrowedFd<'_>, packet: &Packet, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(wire, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Says at the gate that the payload's process has given up all; with it goes the listener of its filter.
///
/// # Errors
/// EPIPE when PID 1 is gone.
pub fn send_ready(gate: BorrowedFd<'_>, listener: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send(gate, &packet(1, 0, 0, 0), listener)
}

/// Receives what [`send_ready`] says; none at end-of-file.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive_ready(gate: BorrowedFd<'_>) -> Result<Option<Option<OwnedFd>>, Errno> {
    Ok(receive(gate)?.map(|(_, listener)| listener))
}

/// Receives one message of the child; none at end-of-file.
///
/// # Errors
/// EPROTO for a message that is not of ours.
pub fn receive_up(wire: BorrowedFd<'_>) -> Result<Option<Up>, Errno> {
    let Some((packet, fd)) = receive(wire)? else { return Ok(None) };
    let message = match (packet[0], fd) {
        (1, _) => Up::Failed(Failure {
            stage: *STAGES.get(usize::from(packet[1])).ok_or(Errno::PROTO)?,
            detail: detail(&packet),
            errno: Errno::from_raw_os_error(value(&packet)),
        }),
        (2, Some(fd)) => Up::Terminal(fd),
        (3, Some(fd)) => Up::Root(fd),
        (4, _) => Up::Exited(value(&packet)),
        (5, _) => Up::Weaker(*weaker::ALL.get(usize::from(packet[1])).ok_or(Errno::PROTO)?),
        (6, Some(fd)) => Up::Held(*HELD.get(usize::from(packet[1])).ok_or(Errno::PROTO)?, fd),
        (7, Some(fd)) => Up::Journal(fd),
        (10, _) => Up::Begun,
        (11, Some(fd)) => Up::Namespace(fd),
        (12, _) => Up::Stopped,
        (13, _) => Up::Made(detail(&packet), value(&packet) as u32),
        _ => return Err(Errno::PROTO),
    };
    Ok(Some(message))
}

/// Receives one message of the supervisor; none at end-of-file.
///
/// # Errors
/// EPROTO for a message that is not of ours.
pub fn receive_down(wire: BorrowedFd<'_>) -> Result<Option<Down>, Errno> {
    let Some((packet, _)) = receive(wire)? else { return Ok(None) };
    match packet[0] {
        1 => Ok(Some(Down::Go)),
        2 => Ok(Some(Down::Signal(value(&packet)))),
        3 => Ok(Some(Down::SignalGroup(value(&packet)))),
        _ => Err(Errno::PROTO),
    }
}

fn receive(wire: BorrowedFd<'_>) -> Result<Option<(Packet, Option<OwnedFd>)>, Errno> {
    let mut packet = [0; LENGTH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut packet)];
        match recvmsg(wire, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The peer died with our message unread. That is said once, before what the peer has told us.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            fd = fds.next();
        }
    }
    match received.bytes {
        0 => Ok(None),
        LENGTH => Ok(Some((packet, fd))),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_survives_the_wire() {
        let (ours, theirs) = pair().expect("pair");
        for (index, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
            let failure = Failure { stage, detail: 7, errno: Errno::NOSPC };
            send_up(theirs.as_fd(), &Up::Failed(failure));
            match receive_up(ours.as_fd()).expect("receive") {
                Some(Up::Failed(got)) => assert_eq!(got, failure),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn last_words_are_heard_of_one_who_did_not_listen() {
        let (ours, theirs) = pair().expect("pair");
        send_down(ours.as_fd(), Down::Go).expect("send");
        let failure = Failure { stage: Stage::Layer, detail: 1, errno: Errno::MFILE };
        send_up(theirs.as_fd(), &Up::Failed(failure));
        drop(theirs);
        match receive_up(ours.as_fd()).expect("receive") {
            Some(Up::Failed(got)) => assert_eq!(got, failure),
            other => panic!("{other:?}"),
        }
        assert!(receive_up(ours.as_fd()).expect("the end").is_none());
    }

    #[test]
    fn descriptors_and_signals_pass_and_the_end_is_seen() {
        let (ours, theirs) = pair().expect("pair");
        let file = std::fs::File::open("/dev/null").expect("open");
        send_up(theirs.as_fd(), &Up::Terminal(file.into()));
        assert!(matches!(receive_up(ours.as_fd()), Ok(Some(Up::Terminal(_)))));
        send_down(ours.as_fd(), Down::Signal(15)).expect("send");
        assert_eq!(receive_down(theirs.as_fd()).expect("receive"), Some(Down::Signal(15)));
        drop(ours);
        assert_eq!(receive_down(theirs.as_fd()).expect("end"), None);
    }
}
