//! The side of a copy that writes, by docker cp's rules: what exists as a directory is copied into, what does not
//! exist is made, and its directory must be there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::source::{Ending, Root, split_ending};
use super::talk::{self, Found, Kind};
use crate::fault::{Fault, Kind as FaultKind, Result, printable};
use crate::ids::IdMap;
use crate::image::tar;
use crate::tree::Totals;
use crate::tree::inscribe::inscribe;
use crate::tree::meta::Journal;

/// Where the stream comes from.
#[derive(Debug)]
pub(super) enum In {
    /// From the other side.
    Side(OwnedFd),
    /// From a descriptor: an archive, for a directory that exists.
    Stream(OwnedFd),
}

/// What was taken.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Taken {
    pub(super) totals: Totals,
    /// How many entries have an owner, or are a device, that is remembered.
    pub(super) remembered: u64,
    /// Of these, what goes into the journal of an upper.
    pub(super) journal: String,
}

/// Takes a stream to `path`. None if the other side has failed, and has told why. What the map cannot hold of the owners
/// of an archive, and its devices, are remembered if `remembers` says so of the directory; also that what was remembered
/// of a link at the same place counts no more.
pub(super) fn consume(
    root: Root<'_>,
    path: &[u8],
    ids: &IdMap,
    from: In,
    remembers: impl FnOnce(BorrowedFd<'_>) -> Result<bool, Errno>,
) -> Result<Option<Taken>> {
    let is_archive = matches!(from, In::Stream(_));
    let (mut from, dir): (Box<dyn Read>, _) = match from {
        In::Stream(from) => (Box::new(BufReader::new(File::from(from))), directory(root, path)?),
        In::Side(socket) => {
            let mut from = File::from(socket);
            let Some(found) = talk::hear(&mut from) else { return Ok(None) };
            let (dir, name) = place(root, path, &found)?;
            talk::want(&mut from, &name)?;
            (Box::new(BufReader::with_capacity(1 << 17, from)), dir)
        }
    };
    let keeps = remembers(dir.as_fd()).map_err(|e| Fault::errno("copy to", show(path), e))?;
    let extracted = if keeps {
        remember(&mut from, &dir, ids, is_archive)
    } else {
        extract(&mut from, &dir, ids)
    };
    extracted.map(Some).map_err(|fault| told(path, fault))
}

/// What is read-only is not the store, which another base_dir would help.
fn told(path: &[u8], fault: Fault) -> Fault {
    if fault.errno != Some(Errno::ROFS.raw_os_error()) {
        return fault;
    }
    Fault { kind: FaultKind::Failed, ..Fault::errno("copy to", show(path), Errno::ROFS) }
        .hint("that place is read-only: copy to another one")
}

fn extract(from: &mut dyn Read, dir: &OwnedFd, ids: &IdMap) -> Result<Taken> {
    // What the map cannot hold has no place here but its owner's, and is counted.
    let totals = tar::extract(from, dir.as_fd(), ids, &mut Vec::new())?;
    Ok(Taken { totals, ..Taken::default() })
}

/// Devices of the host are none of the sandbox; those of an archive are.
fn remember(from: &mut dyn Read, dir: &OwnedFd, ids: &IdMap, with_devices: bool) -> Result<Taken> {
    let mut known = Vec::new();
    let mut totals = tar::extract_over(from, dir.as_fd(), ids, &mut known)?;
    known.retain(|entry| with_devices || entry.device.is_none());
    // Parents before what is in them. Each path comes once.
    known.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut journal = Journal::default();
    totals.files += inscribe(dir.as_fd(), &known, ids, &mut journal)?;
    totals.unmapped = 0;
    if with_devices {
        totals.devices = 0;
    }
    let remembered = known.iter().filter(|entry| !entry.is_empty()).count() as u64;
    Ok(Taken { totals, remembered, journal: journal.to_text() })
}

/// The directory that it is put into, and under which name; none for what is in a directory.
fn place(root: Root<'_>, path: &[u8], found: &Found) -> Result<(OwnedFd, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (plain, ending) = split_ending(path);
    let whole = match (plain.is_empty(), ending) {
        (true, Ending::None) => b".".as_slice(),
        (true, _) => b"/",
        _ => plain,
    };
    match root.open(whole, flags) {
        Ok(dir) => {
            let name = if found.kind == Kind::Contents { Vec::new() } else { found.name.clone() };
            return Ok((dir, name));
        }
        Err(Errno::NOENT) if found.kind != Kind::Other || ending == Ending::None => {}
        Err(Errno::NOENT) => {
            return Err(missing(path, "no such directory"));
        }
        Err(Errno::NOTDIR) if found.kind == Kind::Other && ending == Ending::None => {}
        Err(Errno::NOTDIR) => {
            let shown = show(path);
            return Err(Fault::conflict(format!("copy to: {shown}: it is no directory")));
        }
        Err(errno) => return Err(Fault::errno("copy to", show(path), errno)),
    }
    let name = plain.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if matches!(name, b"" | b"." | b"..") {
        return Err(missing(path, "no such directory"));
    }
    let parent = match plain.len() - name.len() {
        0 if matches!(root, Root::Host) => b".".as_slice(),
        0 => b"/",
        length => &plain[..length],
    };
    match root.open(parent, flags) {
        Ok(dir) => Ok((dir, name.to_vec())),
        Err(Errno::NOENT) => Err(missing(split_ending(parent).0, "no such directory")),
        Err(errno) => Err(Fault::errno("copy to", show(parent), errno)),
    }
}

fn directory(root: Root<'_>, path: &[u8]) -> Result<OwnedFd> {
    let whole = if path.is_empty() { b"/" } else { path };
    match root.open(whole, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => Err(missing(path, "no such directory")),
        Err(errno) => Err(Fault::errno("copy to", show(path), errno)),
        Ok(dir) => Ok(dir),
    }
}

fn missing(path: &[u8], why: &str) -> Fault {
    let message = format!("copy to: {}: {why}", show(path));
    Fault { kind: FaultKind::NotFound, ..Fault::failed(message) }
}

fn show(path: &[u8]) -> String {
    printable(&OsStr::from_bytes(path).to_string_lossy())
}
