//! The words between a supervisor and those who ask it: packets of JSON on a SOCK_SEQPACKET socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::held::{HELD, Held};
use crate::fault::Fault;
use crate::store::{LayerId, RunId, SnapshotName};

/// The largest packet. The longest are the messages of a run that has ended.
pub(super) const PACKET: usize = 32 * 1024;

/// What is asked. One connection asks one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Which run it is, and what it does.
    Status,
    /// The descriptors to join it by. The connection is to be held open for as long as they are: at the end of the
    /// run it is shut down, and the run is not committed before it is closed.
    Join,
    /// To be told how the run ended.
    Wait,
    /// A signal for the command, by its number.
    Kill {
        /// The number.
        signal: i32,
    },
    /// To end the command, and to be told how that went.
    Stop {
        /// What becomes of the changes, if not what the run was started with.
        verdict: Option<Verdict>,
        /// Between SIGTERM and SIGKILL, milliseconds.
        grace_ms: u64,
    },
    /// To follow the output, and perhaps to type. After the answer [`Typed`] packets go one way, [`MORE`] and at
    /// the end [`Reply::Ended`] the other.
    Attach {
        /// Whether the client has something to type.
        input: bool,
    },
}

/// What becomes of the changes of a run that is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// They are a snapshot of this name.
    Commit(SnapshotName),
    /// They are the new head, if the run started from head.
    Keep,
    /// They are the new head in any case.
    KeepForce,
    /// They are thrown away.
    Discard,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It was refused, or went wrong.
    Fault(Fault),
    /// It is done.
    Done,
    /// To [`Request::Status`].
    Status {
        /// The run.
        run: RunId,
        /// Whether the command has a terminal.
        terminal: bool,
        /// Whether it takes input.
        input: bool,
        /// How many follow its output.
        attached: usize,
    },
    /// To [`Request::Join`]: what the descriptors are that come along.
    Joined(Vec<Held>),
    /// To [`Request::Attach`]; the log comes along, open for reading.
    Attached {
        /// Whether the command has a terminal.
        terminal: bool,
        /// Whether it takes input.
        input: bool,
    },
    /// The run is over.
    Ended(Ending),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The run; none if it was refused before there was one.
    pub run: Option<RunId>,
    /// The exit code that `run` would have.
    pub code: u8,
    /// Lines for a person.
    pub messages: Vec<String>,
    /// What went wrong on our side.
    pub fault: Option<Fault>,
    /// The layer that was committed.
    pub committed: Option<LayerId>,
    /// Whether the changes can be had by the run's id.
    pub kept: bool,
}

impl Ending {
    /// Whether its directory is left, and its log says what the messages say.
    pub fn is_left(&self) -> bool {
        self.kept || self.fault.is_some()
    }
}

/// A packet to those who are attached: there is more in the log. Not many are sent before one is answered by
/// [`Typed::Heard`], so that there is always room for the last word to one who does not listen.
pub const MORE: &[u8] = b".";

/// What a client that is attached sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed<'a> {
    /// Bytes for the command.
    Bytes(&'a [u8]),
    /// There is no more to come.
    End,
    /// The size of the client's terminal: rows, columns.
    Size(u16, u16),
    /// A signal for the command, by its number.
    Signal(u8),
    /// A [`MORE`] was heard.
    Heard,
}

impl<'a> Typed<'a> {
    /// As a packet.
    pub fn packet(&self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => [b"b", *bytes].concat(),
            Self::End => b"e".to_vec(),
            Self::Signal(number) => vec![b'k', *number],
            Self::Heard => b"h".to_vec(),
            Self::Size(rows, columns) => {
                [b"s".as_slice(), &rows.to_le_bytes(), &columns.to_le_bytes()].concat()
            }
        }
    }

    /// From a packet; none if it is not one.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        match packet {
            [b'b', bytes @ ..] => Some(Self::Bytes(bytes)),
            [b'e'] => Some(Self::End),
            [b'k', number] => Some(Self::Signal(*number)),
            [b'h'] => Some(Self::Heard),
            [b's', a, b, c, d] => {
                Some(Self::Size(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])))
            }
            _ => None,
        }
    }
}

/// Sends one packet, with descriptors.
///
/// # Errors
/// EPIPE if nobody is there any more, EAGAIN if the socket does not block and is full, EMSGSIZE.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    send_with(socket, packet, fds, SendFlags::NOSIGNAL)
}

/// The same without waiting for room.
///
/// # Errors
/// As [`send`]; EAGAIN.
pub(super) fn send_now(socket: BorrowedFd<'_>, packet: &[u8]) -> Result<(), Errno> {
    send_with(socket, packet, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_with(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HELD.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Sends a message as a packet of JSON.
///
/// # Errors
/// As [`send`].
pub(super) fn tell(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    send(socket, &bytes, fds)
}

/// A packet and the descriptors that came along.
type Packet<'a> = (&'a [u8], Vec<OwnedFd>);

/// Receives one packet into `buffer`; none at the end. A packet that is longer than the buffer is none of ours.
///
/// # Errors
/// EAGAIN if there is none yet and the socket does not block; EMSGSIZE.
pub(super) fn receive<'a>(
    socket: BorrowedFd<'_>,
    buffer: &'a mut [u8],
) -> Result<Option<Packet<'a>>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(HELD.len()))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            // The peer is gone with a packet of ours unread. That is said once, before what he has told us.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            fds.extend(more);
        }
    }
    if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    match received.bytes {
        0 => Ok(None),
        bytes => Ok(Some((&buffer[..bytes], fds))),
    }
}

/// Receives a message; none at the end.
///
/// # Errors
/// As [`receive`]; EPROTO for what is no message of ours.
pub(super) fn hear<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut buffer = vec![0; PACKET];
    let Some((packet, fds)) = receive(socket.as_fd(), &mut buffer)? else { return Ok(None) };
    let message = serde_json::from_slice(packet).map_err(|_| Errno::PROTO)?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_survives() {
        for typed in [
            Typed::Bytes(b"x\0y"),
            Typed::Bytes(b""),
            Typed::End,
            Typed::Size(24, 300),
            Typed::Signal(2),
            Typed::Heard,
        ] {
            assert_eq!(Typed::read(&typed.packet()), Some(typed));
        }
        for packet in [&b""[..], b"ex", b"s123", b"s12345", b"?"] {
            assert_eq!(Typed::read(packet), None);
        }
    }

    #[test]
    fn requests_have_one_form() {
        let stop = Request::Stop {
            verdict: Some(Verdict::Commit("a".parse().unwrap())),
            grace_ms: 10_000,
        };
        let text = r#"{"stop":{"verdict":{"commit":"a"},"grace_ms":10000}}"#;
        assert_eq!(serde_json::to_string(&stop).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), stop);
        for text in ["", "null", "\"halt\"", r#"{"kill":{}}"#, r#"{"kill":{"signal":1,"x":2}}"#] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
