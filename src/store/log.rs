//! The log of a box: one line of JSON for each move, with what was before it. So a move can be taken back
//! ([`State::undo`](super::State::undo)), and gc keeps what young entries name.
//!
//! A line is written before what it tells of, and not synced. So a killed move is in the log, whatever it
//! has done; a power cut may take the last lines, and with them only the way back. The log is cut at its
//! old end when it has outgrown its box's `undo_size`.

mod entry;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{OFlags, fstat, ftruncate, openat, renameat};
use rustix::io::{Errno, pread, retry_on_intr};

use super::failpoint::step;
use super::file::{self, PRIVATE_FILE};
use super::{Box_, BoxName, BoxSettings, Store, json_line, layout};
use crate::fault::{Context, Fault, Result, is_of_the_disk, quoted};

pub use entry::{LogEntry, Moved, Pair, RefMoved};

/// The log of one box is not read beyond this.
pub(super) const LIMIT: usize = 256 << 20;

impl Box_<'_> {
    /// All entries, oldest first. A line that a crash has cut is left out.
    ///
    /// # Errors
    /// Damaged if there is something else than a file.
    pub fn log(&self) -> Result<Vec<LogEntry>> {
        self.store.box_log(self.name())
    }

    /// All entries, and how many lines are damaged.
    ///
    /// # Errors
    /// As [`Box_::log`].
    pub fn log_and_damage(&self) -> Result<(Vec<LogEntry>, usize)> {
        let bytes = self.store.log_bytes(self.name())?;
        Ok((lines(&bytes).filter_map(parse).collect(), broken_lines(&bytes)))
    }
}

impl Store {
    pub(super) fn box_log(&self, name: &BoxName) -> Result<Vec<LogEntry>> {
        Ok(lines(&self.log_bytes(name)?).filter_map(parse).collect())
    }

    /// The log as it lies on disk.
    pub(super) fn log_bytes(&self, name: &BoxName) -> Result<Vec<u8>> {
        let file = layout::log(name);
        match file::read_small(self.dir(), &file, LIMIT) {
            Ok(bytes) => Ok(bytes),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(self.log_fault("read log", &file, errno)),
        }
    }

    /// Opens the log to append to it, under the lock of the box.
    pub(super) fn open_log(&self, name: &BoxName) -> Result<OpenLog<'_>> {
        let name = layout::log(name);
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let opened = retry_on_intr(|| openat(self.dir(), &name, flags, PRIVATE_FILE))
            .and_then(|file| Ok((u64::try_from(fstat(&file)?.st_size).unwrap_or_default(), file)));
        match opened {
            Ok((size, file)) => Ok(OpenLog { store: self, name, file, size }),
            Err(errno) => Err(self.log_fault("append to log", &name, errno)),
        }
    }

    fn log_fault(&self, what: &str, name: &str, errno: Errno) -> Fault {
        let shown = self.show(name);
        let fault = Fault::errno(what, &shown, errno);
        let odd = matches!(errno, Errno::LOOP | Errno::ISDIR | Errno::FBIG | Errno::NXIO);
        match odd || is_of_the_disk(errno) {
            true => Fault::damaged(fault.message).hint(format!(
                "remove it: `rm -r {}`; what it could undo is lost, no more",
                quoted(&shown)
            )),
            false => fault,
        }
    }
}

/// The log of a box whose lock is held.
#[derive(Debug)]
pub(super) struct OpenLog<'s> {
    store: &'s Store,
    name: String,
    file: OwnedFd,
    /// Its size before anything was appended.
    size: u64,
}

impl OpenLog<'_> {
    /// Its path, for messages.
    pub(super) fn shown(&self) -> String {
        self.store.show(&self.name)
    }

    /// Appends one line.
    pub(super) fn append(&self, mut line: Vec<u8>) -> Result<(), Errno> {
        let append = || {
            let mut last = [b'\n'];
            if self.size > 0 {
                pread(&self.file, &mut last, self.size - 1)?;
            }
            // A crash has cut the last line: do not let it take ours with it.
            if last != [b'\n'] {
                line.insert(0, b'\n');
            }
            file::write_all(self.file.as_fd(), &line)
        };
        step("log.append", append)
    }

    /// After a failure: takes back what was appended. Best effort, undo passes over what stays.
    pub(super) fn cut(&self) {
        ftruncate(&self.file, self.size).ok();
    }

    /// Leaves out the oldest moves if the log is larger than its box allows. Best effort: the next move
    /// tries again.
    pub(super) fn trim(&self, settings: &BoxSettings) {
        let limit = settings.undo_size();
        let size = fstat(&self.file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        if size <= limit {
            return;
        }
        let unfinished = self.name.replace("/log", &format!("/{}log", layout::UNFINISHED));
        if self.replace(&unfinished, settings).is_err() {
            file::unlink(self.store.dir(), &unfinished).ok();
        }
    }

    fn replace(&self, unfinished: &str, settings: &BoxSettings) -> Result<(), Errno> {
        let dir = self.store.dir();
        let bytes = file::read_small(dir, &self.name, LIMIT)?;
        // Half of what is allowed, so that not every move has to do this.
        let kept = newest(&bytes, settings.undo_size() / 2, settings.undo_age());
        self.store.write_durably(["log.temp", "log.temp.fsync"], unfinished, kept)?;
        step("log.rename", || renameat(dir, unfinished, dir, &self.name))?;
        let folder = self.name.trim_end_matches("/log");
        file::open_dir(dir, folder).and_then(|dir| step("log.fsync", || rustix::fs::fsync(&dir)))
    }
}

/// The end of a log that is not larger and not older than this, and the last line in any case.
fn newest(bytes: &[u8], size: u64, age: Duration) -> &[u8] {
    let now = Timestamp::now();
    let mut kept = bytes.len();
    let mut begin = bytes.len();
    for line in bytes.split_inclusive(|byte| *byte == b'\n').rev() {
        begin -= line.len();
        let old = parse(line).is_some_and(|entry| entry.age(now) >= age);
        let large = (bytes.len() - begin) as u64 > size;
        if (old || large) && kept < bytes.len() {
            break;
        }
        kept = begin;
    }
    bytes.get(kept..).unwrap_or_default()
}

/// The lines that hold anything.
pub(super) fn lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// The entry of a line, if a crash has left it whole.
pub(super) fn parse(line: &[u8]) -> Option<LogEntry> {
    serde_json::from_slice(line).ok()
}

/// How many lines are no entries.
pub(super) fn broken_lines(bytes: &[u8]) -> usize {
    lines(bytes).filter(|line| parse(line).is_none()).count()
}

impl Store {
    /// Appends entries that say what was done otherwise than by a move. Undo does not go past them.
    pub(super) fn append_log(&self, name: &BoxName, entries: &[LogEntry]) -> Result<()> {
        entries.iter().try_for_each(|entry| {
            let log = self.open_log(name)?;
            log.append(json_line(entry)?).context("append to log", log.shown())
        })
    }

    /// Writes the log anew without lines that are no entries; says whether there were any. Under the exclusive
    /// store lock.
    pub(super) fn drop_broken_lines(&self, name: &BoxName) -> Result<bool> {
        let file = layout::log(name);
        let Ok(bytes) = file::read_small(self.dir(), &file, LIMIT) else { return Ok(false) };
        if broken_lines(&bytes) == 0 {
            return Ok(false);
        }
        let mut kept = Vec::with_capacity(bytes.len());
        for line in lines(&bytes).filter(|line| parse(line).is_some()) {
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
    use crate::store::{LayerId, MoveId, RefRecord, SnapshotName};

    fn entries(bytes: &[u8]) -> usize {
        lines(bytes).filter_map(parse).count()
    }

    #[test]
    fn a_cut_line_is_left_out() {
        let whole = json_line(&LogEntry::new("clean")).expect("json");
        let mut bytes = whole.clone();
        bytes.extend(&whole[..20]);
        bytes.push(b'\n');
        bytes.extend(&whole);
        assert_eq!(entries(&bytes), 2);
        assert_eq!(entries(b""), 0);
        assert_eq!(entries(b"\0\0\0\n{}\n[]"), 0);
    }

    #[test]
    fn an_entry_reads_back_and_an_old_one_too() {
        let layer = LayerId::random().expect("id");
        let record = RefRecord { protected: true, ..RefRecord::new(layer, Some("said".into())) };
        let name: SnapshotName = "x".parse().expect("name");
        let entry = LogEntry {
            id: Some(MoveId::random().expect("id")),
            head: Some(Pair { old: None, new: Some(layer) }),
            refs: vec![RefMoved { name, old: None, new: Some(record) }],
            ..LogEntry::new("snapshot")
        };
        let line = json_line(&entry).expect("json");
        assert_eq!(parse(&line), Some(entry));
        let old = format!(r#"{{"time":"2026-01-01T00:00:00Z","action":"rm","old":"{layer}"}}"#);
        let old = parse(old.as_bytes()).expect("entry");
        assert_eq!((old.id, old.moved().len(), old.layers().count()), (None, 0, 1));
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let mut bytes = b"cut by a cra".to_vec();
        bytes.push(b'\n');
        let hour = Duration::from_secs(3600);
        for hours in [5, 4, 3, 2, 1, 0] {
            let time = Timestamp::now() - hour * hours;
            bytes.extend(json_line(&LogEntry { time, ..LogEntry::new("rm") }).expect("json"));
        }
        let day = hour * 24;
        let count = |size, age| entries(newest(&bytes, size, age));
        assert_eq!(newest(&bytes, u64::MAX, day).len(), bytes.len());
        assert_eq!(count(u64::MAX, hour * 5 / 2), 3);
        assert_eq!(count(u64::MAX, Duration::ZERO), 1, "the last one stays");
        assert_eq!(count(0, day), 1);
        let one = lines(&bytes).last().expect("line").len() as u64 + 1;
        assert_eq!(count(2 * one + 20, day), 2);
        assert_eq!(newest(b"", 10, day), b"");
    }
}
