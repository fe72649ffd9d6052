//! The journal of remembered owners, from the memory that the handler shared with us.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::fstat;
use rustix::io::pread;

use crate::fault::{Context, Result};
use crate::ids::{self, Entry, Powers};
use crate::ops::copyup::Upper;
use crate::ops::owners::{Memory, beneath};
use crate::run::answer;
use crate::run::spec::RunSpec;
use crate::store::{Run, RunRecord, Store};
use crate::tree::meta::MARK;

/// What the handler of a command was told before it began.
#[derive(Debug)]
pub(super) struct Resumed {
    /// How much of its journal that is, in bytes.
    length: usize,
}

impl Resumed {
    /// For a command that goes on in a kept run: what its links, fifos and sockets have been given is known to nobody
    /// else, and may be changed by half. None if nothing is in the run's own journal, or nobody asks.
    ///
    /// # Errors
    /// What reading the tree says, naming the path.
    pub(super) fn of(
        store: &Store,
        run: Option<&Run>,
        record: &RunRecord,
        spec: &mut RunSpec,
    ) -> Result<Option<Self>> {
        let Some(run) = run.filter(|_| spec.remember.is_some()) else { return Ok(None) };
        let memory = Memory::of_run(store, run, record, &[])?;
        let Some(memory) = memory.filter(Memory::has_entries) else { return Ok(None) };
        let upper = Upper::open(store, run, record)?;
        let known = ids::inside(Entry::Map(&record.id_map), Powers::Files, || {
            let known = memory.resumed(upper.dir(), &beneath(upper.layers()))?;
            Ok(known.to_text())
        })?;
        let file = answer::journal().context("make", "a file in memory")?;
        answer::add(file.as_fd(), &known).context("write journal", "of remembered owners")?;
        let length = read_journal(file.as_fd())?.len();
        spec.journal = Some(file);
        Ok(Some(Self { length }))
    }
}

/// All that is new; nothing if there was no handler. Of a run that was `resumed` an earlier supervisor may have been
/// killed, and its journal with it: there any file may have the attribute.
///
/// # Errors
/// What reading says.
pub(super) fn read(
    journal: Option<OwnedFd>,
    resumed: bool,
    known: Option<&Resumed>,
) -> Result<Vec<u8>> {
    let mark = if resumed { MARK } else { &[] };
    let Some(file) = journal else { return Ok(mark.to_vec()) };
    let mut bytes = read_journal(file.as_fd())?;
    bytes.drain(..known.map_or(0, |known| known.length).min(bytes.len()));
    bytes.extend(mark);
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
