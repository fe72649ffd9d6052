//! Where the handler writes down what it remembers: on the file, or in the journal.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, XattrFlags, fcntl_setfl, fstat, memfd_create};
use rustix::io::{Errno, pread, write};

use super::place::{Attributes, Found};
use crate::tree::meta::{self, Inode, Journal, Meta, journal_line};

/// The journal in memory is not longer than this, in bytes: a payload cannot fill the machine's memory by it.
const LONGEST: usize = 64 << 20;

/// The journal: a file in memory that the supervisor has, too, and what stands in it.
#[derive(Debug)]
pub(super) struct Notes {
    file: OwnedFd,
    /// How much of it, in bytes, stands in `known`, if others write to it, too.
    shared: Option<u64>,
    known: HashMap<Inode, Meta>,
    /// Whether the journal says that files have got the attribute.
    marked: bool,
}

/// An empty journal: each line goes to its end, whoever writes it.
///
/// # Errors
/// What memfd_create(2) says.
pub fn journal() -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"owners", MemfdFlags::CLOEXEC)?;
    fcntl_setfl(&file, OFlags::RDWR | OFlags::APPEND)?;
    Ok(file)
}

/// Adds lines, each whole, to the journal of a run for whose handlers somebody else has done something.
///
/// # Errors
/// NOSPC if it would be too long; what write(2) says.
pub fn add(journal: BorrowedFd<'_>, lines: &str) -> Result<(), Errno> {
    let size = u64::try_from(fstat(journal)?.st_size).unwrap_or_default();
    // A handler may have been killed in the midst of a line.
    let lines = format!("\n{lines}");
    let whole = usize::try_from(size).map_err(|_| Errno::NOSPC)?.saturating_add(lines.len());
    if whole > LONGEST || write(journal, lines.as_bytes())? != lines.len() {
        return Err(Errno::NOSPC);
    }
    Ok(())
}

impl Notes {
    /// With a journal of its own, or in this one, to which the handlers of other commands of the run add, too.
    pub(super) fn new(shared: Option<&OwnedFd>) -> Result<Self, Errno> {
        let file = match shared {
            Some(file) => rustix::io::fcntl_dupfd_cloexec(file, 0)?,
            None => journal()?,
        };
        let shared = shared.map(|_| 0);
        Ok(Self { file, shared, known: HashMap::new(), marked: false })
    }

    /// Takes over what others have written down since.
    fn catch_up(&mut self) -> Result<(), Errno> {
        let Some(from) = self.shared else { return Ok(()) };
        let size = u64::try_from(fstat(&self.file)?.st_size).unwrap_or_default();
        let mut rest = vec![0; usize::try_from(size.saturating_sub(from)).unwrap_or_default()];
        let length = if rest.is_empty() { 0 } else { pread(&self.file, &mut rest, from)? };
        let whole = rest[..length].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.known.extend(Journal::parse(&rest[..whole]).entries());
        self.shared = Some(from + whole as u64);
        Ok(())
    }

    pub(super) fn copy(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.file, 0)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What is remembered of a file that has these attributes.
    pub(super) fn read(&mut self, found: &Found, attributes: Attributes) -> Result<Meta, Errno> {
        if !found.has_attributes() {
            self.catch_up()?;
            let nothing = Meta { unset: (true, true), ..Meta::default() };
            return Ok(self.known.get(&found.inode()).copied().unwrap_or(nothing));
        }
        if !attributes.record {
            return Ok(Meta::default());
        }
        let mut buffer = [0_u8; meta::LONGEST];
        match found.file.get(meta::NAME, &mut buffer) {
            Ok(length) => Ok(Meta::parse(&buffer[..length]).unwrap_or_default()),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Meta::default()),
            Err(errno) => Err(errno),
        }
    }

    /// Remembers this of a file from now on.
    pub(super) fn write(&mut self, found: &Found, meta: &Meta) -> Result<(), Errno> {
        if !found.has_attributes() {
            return self.note(found.inode(), meta);
        }
        if meta.is_empty() {
            return match found.file.remove(meta::NAME) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                other => other,
            };
        }
        if !self.marked {
            self.append(meta::MARK)?;
            self.marked = true;
        }
        let value = meta.to_string();
        found.file.set(meta::NAME, value.as_bytes(), XattrFlags::empty())
    }

    /// Adds a line to the journal.
    pub(super) fn note(&mut self, inode: Inode, meta: &Meta) -> Result<(), Errno> {
        self.catch_up()?;
        if self.known.get(&inode) == Some(meta) {
            return Ok(());
        }
        self.append(journal_line(&inode, meta).as_bytes())?;
        self.known.insert(inode, *meta);
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> Result<(), Errno> {
        let size = u64::try_from(fstat(&self.file)?.st_size).unwrap_or_default();
        let length = usize::try_from(size).map_err(|_| Errno::NOSPC)?;
        let mut last = *b"\n";
        if self.shared.is_some() && size > 0 {
            pread(&self.file, &mut last, size - 1)?;
        }
        // Another handler was killed in the midst of a line.
        let line = if last == *b"\n" { line } else { &[b"\n", line].concat() };
        if length + line.len() > LONGEST || write(&self.file, line)? != line.len() {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }
}
