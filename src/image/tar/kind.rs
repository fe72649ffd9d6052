//! What an entry of an archive is, and what none may have.

use tar::EntryType;

use super::reader::Entry;
use crate::fault::Result;
use crate::tree::whiteout::is_overlay_name;

/// The type of an entry: old archives mark directories by a `/` at the end of the name only.
pub(super) fn effective(entry: &Entry) -> Result<EntryType> {
    let kind = match entry.kind {
        EntryType::Regular if entry.path.ends_with(b"/") => EntryType::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            return Ok(EntryType::Regular);
        }
        other => other,
    };
    match kind {
        EntryType::Directory
        | EntryType::Symlink
        | EntryType::Link
        | EntryType::Fifo
        | EntryType::Char
        | EntryType::Block => {}
        other => {
            let letter = char::from(other.as_byte()).escape_default();
            return Err(entry.fault(&format!("an entry of the unknown type {letter}")));
        }
    }
    // Readers disagree whether such content is there at all: one sees entries that another does not.
    if entry.size != 0 {
        return Err(entry.fault("a size where no content can be"));
    }
    Ok(kind)
}

/// Refuses what overlayfs would read as its own.
pub(super) fn check_xattrs(entry: &Entry) -> Result<()> {
    match entry.xattrs.iter().find(|(name, _)| is_overlay_name(name)) {
        Some((name, _)) => Err(entry.fault(&format!(
            "the attribute {} would be read by overlayfs",
            crate::fault::printable(&String::from_utf8_lossy(name))
        ))),
        None => Ok(()),
    }
}
