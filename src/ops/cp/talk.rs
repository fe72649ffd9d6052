//! What the two sides of a copy say to each other before the stream begins: the reader what it has found, the
//! writer under which name it wants it.

use std::io::{Read, Write};

use crate::fault::{Context, Result};

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// What is in a directory (`SRC/.`).
    Contents,
    /// Anything else.
    Other,
}

/// What the reader has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    /// Its own name; empty for the root.
    pub(super) name: Vec<u8>,
}

const LONGEST: usize = 255;

/// Says it, and hears the name to use; none if the writer does not want it, and has told why.
pub(super) fn offer(socket: &mut (impl Read + Write), found: &Found) -> Result<Option<Vec<u8>>> {
    let kind = match found.kind {
        Kind::Directory => b'd',
        Kind::Contents => b'c',
        Kind::Other => b'o',
    };
    let mut word = vec![kind];
    word.extend(packed(&found.name));
    if socket.write_all(&word).is_err() {
        return Ok(None);
    }
    Ok(name(socket).ok())
}

/// Hears what was found; none if the reader has failed, and has told why.
pub(super) fn hear(socket: &mut impl Read) -> Option<Found> {
    let mut kind = [0];
    socket.read_exact(&mut kind).ok()?;
    let kind = match kind {
        [b'd'] => Kind::Directory,
        [b'c'] => Kind::Contents,
        _ => Kind::Other,
    };
    Some(Found { kind, name: name(socket).ok()? })
}

/// Says the name to use; empty for what is in a directory.
pub(super) fn want(socket: &mut impl Write, name: &[u8]) -> Result<()> {
    socket.write_all(&packed(name)).context("write", "to the other side of a copy")
}

fn packed(name: &[u8]) -> Vec<u8> {
    let name = &name[..name.len().min(LONGEST)];
    [&[name.len() as u8], name].concat()
}

fn name(socket: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0];
    socket.read_exact(&mut length)?;
    let mut name = vec![0; usize::from(length[0])];
    socket.read_exact(&mut name)?;
    Ok(name)
}
