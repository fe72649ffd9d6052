//! What the handler of remembered owners has written down during a run that is kept: of links, fifos and
//! sockets nothing else tells. (In a run that is committed at once it stays in memory.)

use rustix::fs::fsync;
use rustix::io::Errno;

use super::failpoint::step;
use super::{Run, file, layout};
use crate::fault::{Context, Result};

/// As long as a handler writes, twice: a kept run may have had several.
const LIMIT: usize = 128 << 20;

impl Run {
    /// The journal of an earlier command of this run; empty if there is none.
    ///
    /// # Errors
    /// What reading it says.
    pub fn journal(&self) -> Result<Vec<u8>> {
        match file::read_small(self.dir(), layout::RUN_JOURNAL, LIMIT) {
            Err(Errno::NOENT) => Ok(Vec::new()),
            other => other.context("read journal of run", self.id()),
        }
    }

    /// Adds a journal to that of the run, durably. Later lines count more, and half a line counts nothing.
    ///
    /// # Errors
    /// What writing it says.
    pub fn keep_journal(&self, bytes: &[u8]) -> Result<()> {
        step("run.journal", || {
            match file::append(self.dir(), layout::RUN_JOURNAL, bytes) {
                Err(Errno::NOENT) => {
                    file::write_small(self.dir(), layout::RUN_JOURNAL, bytes)?;
                }
                other => other?,
            }
            fsync(file::open_file(self.dir(), layout::RUN_JOURNAL)?)
        })
        .context("write journal of run", self.id())
    }
}
