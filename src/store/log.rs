//! The log of a box: one line of JSON for each move. gc keeps what young entries name, so that a move can be
//! taken back.
//!
//! It is not synced: a power cut may take its last lines, and with them only the way back.

use std::os::fd::AsFd;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::{Errno, pread, retry_on_intr};
use serde::{Deserialize, Serialize};

use super::failpoint::step;
use super::file::{self, PRIVATE_FILE};
use super::{Box_, BoxName, LayerId, SnapshotName, Store, json_line, layout};
use crate::fault::{Context, Fault, Result};

/// The log of one box is not read beyond this.
pub(super) const LIMIT: usize = 256 << 20;

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When.
    pub time: Timestamp,
    /// The command that moved something: `init`, `run`, `snapshot`, `rm`, `recover`.
    pub action: String,
    /// What head (or the snapshot) was before.
    #[serde(default)]
    pub old: Option<LayerId>,
    /// What it is now.
    #[serde(default)]
    pub new: Option<LayerId>,
    /// What current was before, if the move changed it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_current: Option<LayerId>,
    /// The snapshot that was moved, if one was.
    #[serde(default)]
    pub name: Option<SnapshotName>,
    /// The command inside, of a run.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The layer that was made, if one was.
    #[serde(default)]
    pub layer: Option<LayerId>,
}

impl LogEntry {
    /// An entry of now that says only what was done.
    pub fn new(action: &str) -> Self {
        Self {
            time: Timestamp::now(),
            action: action.to_owned(),
            old: None,
            new: None,
            old_current: None,
            name: None,
            argv: Vec::new(),
            layer: None,
        }
    }

    /// The layers it names, which `undo` may need.
    pub(crate) fn layers(&self) -> impl Iterator<Item = LayerId> {
        [self.old, self.new, self.old_current, self.layer].into_iter().flatten()
    }
}

impl Box_<'_> {
    /// All entries, oldest first. A line that a crash has cut is left out.
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        self.store.box_log(self.name())
    }
}

impl Store {
    pub(super) fn box_log(&self, name: &BoxName) -> Result<Vec<LogEntry>> {
        let file = layout::log(name);
        match file::read_small(self.dir(), &file, LIMIT) {
            Ok(bytes) => Ok(parse(&bytes)),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(Fault::errno("read log", self.show(&file), errno)),
        }
    }

    /// Appends entries, under the lock of the box.
    pub(super) fn append_log(&self, name: &BoxName, entries: &[LogEntry]) -> Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend(json_line(entry)?);
        }
        let file = layout::log(name);
        step("log.append", || append(self, &file, &mut bytes))
            .context("append to log", self.show(&file))
    }
}

fn append(store: &Store, name: &str, bytes: &mut Vec<u8>) -> Result<(), Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        retry_on_intr(|| openat(store.dir(), name, flags, PRIVATE_FILE.union(Mode::empty())))?;
    let size = u64::try_from(fstat(&file)?.st_size).unwrap_or_default();
    let mut last = [b'\n'];
    if size > 0 {
        pread(&file, &mut last, size - 1)?;
    }
    // A crash has cut the last line: do not let it take ours with it.
    if last != [b'\n'] {
        bytes.insert(0, b'\n');
    }
    file::write_all(file.as_fd(), bytes)
}

fn parse(bytes: &[u8]) -> Vec<LogEntry> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// How many lines are no entries.
pub(super) fn broken_lines(bytes: &[u8]) -> usize {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter(|line| serde_json::from_slice::<LogEntry>(line).is_err()).count()
}

impl Store {
    /// Writes the log anew without lines that are no entries; says whether there were any. Under the exclusive
    /// store lock.
    pub(super) fn drop_broken_lines(&self, name: &BoxName) -> Result<bool> {
        let file = layout::log(name);
        let Ok(bytes) = file::read_small(self.dir(), &file, LIMIT) else { return Ok(false) };
        if broken_lines(&bytes) == 0 {
            return Ok(false);
        }
        let whole = |line: &&[u8]| serde_json::from_slice::<LogEntry>(line).is_ok();
        let mut kept = Vec::with_capacity(bytes.len());
        for line in bytes.split(|byte| *byte == b'\n').filter(whole) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        step("repair.log", || self.replace_durably(&layout::boxed(name), "log", &kept))
            .context("write log", self.show(&file))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_left_out() {
        let whole = json_line(&LogEntry::new("clean")).expect("json");
        let mut bytes = whole.clone();
        bytes.extend(&whole[..20]);
        bytes.push(b'\n');
        bytes.extend(&whole);
        assert_eq!(parse(&bytes).len(), 2);
        assert_eq!(parse(b""), []);
        assert_eq!(parse(b"\0\0\0\n{}\n[]"), []);
    }
}
