//! The side of a copy that writes, by docker cp's rules: what exists as a directory is copied into, what does not
//! exist is made, and its directory must be there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::source::{Ending, Root, split_ending};
use super::talk::{self, Found, Kind};
use crate::fault::{Fault, Kind as FaultKind, Result, printable};
use crate::ids::IdMap;
use crate::image::tar;
use crate::tree::Totals;

/// Where the stream comes from.
#[derive(Debug)]
pub(super) enum In {
    /// From the other side.
    Side(OwnedFd),
    /// From a descriptor: an archive, for a directory that exists.
    Stream(OwnedFd),
}

/// Takes a stream to `path`. None if the other side has failed, and has told why.
pub(super) fn consume(
    root: Root<'_>,
    path: &[u8],
    ids: &IdMap,
    from: In,
) -> Result<Option<Totals>> {
    let mut from = match from {
        In::Stream(from) => {
            let dir = directory(root, path)?;
            let extracted = extract(&mut BufReader::new(File::from(from)), &dir, ids);
            return extracted.map(Some).map_err(|fault| told(path, fault));
        }
        In::Side(socket) => File::from(socket),
    };
    let Some(found) = talk::hear(&mut from) else { return Ok(None) };
    let (dir, name) = place(root, path, &found)?;
    talk::want(&mut from, &name)?;
    let extracted = extract(&mut BufReader::with_capacity(1 << 17, from), &dir, ids);
    extracted.map(Some).map_err(|fault| told(path, fault))
}

/// What is read-only is not the store, which another base_dir would help.
fn told(path: &[u8], fault: Fault) -> Fault {
    if fault.errno != Some(Errno::ROFS.raw_os_error()) {
        return fault;
    }
    Fault::errno("copy to", show(path), Errno::ROFS)
        .hint("that place is read-only: copy to another one")
}

fn extract(from: &mut dyn Read, dir: &OwnedFd, ids: &IdMap) -> Result<Totals> {
    // What the map cannot hold has no place here but its owner's, and is counted.
    tar::extract(from, dir.as_fd(), ids, &mut Vec::new())
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
