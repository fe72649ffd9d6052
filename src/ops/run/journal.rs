//! The journal of remembered owners, from the memory that the handler shared with us.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::pread;

use crate::fault::{Context, Result};
use crate::tree::meta::MARK;

/// All of it; nothing if there was no handler. Of a run that was `resumed` an earlier supervisor may have been killed, and
/// its journal with it: there any file may have the attribute.
///
/// # Errors
/// What reading says.
pub(super) fn read(journal: Option<OwnedFd>, resumed: bool) -> Result<Vec<u8>> {
    let known = if resumed { MARK } else { &[] };
    let Some(file) = journal else { return Ok(known.to_vec()) };
    let mut bytes = read_journal(file.as_fd())?;
    bytes.extend(known);
    Ok(bytes)
}

/// What stands in such a file by now, without half a line at its end.
///
/// # Errors
/// What reading says.
pub(in crate::ops) fn read_journal(file: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let what = "of remembered owners";
    let size = fstat(file).context("read journal", what)?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut done = 0;
    while done < bytes.len() {
        let got = pread(file, &mut bytes[done..], done as u64).context("read journal", what)?;
        if got == 0 {
            break;
        }
        done += got;
    }
    bytes.truncate(done);
    // A handler that was killed may have left half a line.
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(whole);
    Ok(bytes)
}
