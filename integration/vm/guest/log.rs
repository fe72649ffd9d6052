//! The log of a dm-log-writes device: what was written to a disk, in the order in which it became durable.
//!
//! Sector 0 is the head: magic, version (1), number of entries (each u64) and bytes of a sector (u32), all
//! little-endian. Each entry is a sector with u64 fields (sector, number of sectors, flags, bytes of data),
//! then its sectors. A mark has its text in its own sector, after the fields, and no sectors.
//!
//! The kernel lists a write when a later flush has made it durable (or it was FUA itself), before the entry
//! of that flush. So the entries before a flush or FUA are what the disk surely holds when that is done.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::{Numbers, Result};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// The mark that the kernel itself sets when the device is taken down.
const LAST: &str = "dm-log-writes-end";

/// One entry and where it lies.
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Of a mark: its text.
    text: String,
    /// Where the data starts in the log.
    at: u64,
}

/// A log that was read.
pub(crate) struct Log {
    file: File,
    sector_size: u64,
    entries: Vec<Entry>,
}

impl Log {
    /// Reads the heads of all entries.
    pub(crate) fn open(path: &str) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
        let mut head = [0; 32];
        file.read_exact_at(&mut head, 0)?;
        if number(&head, 0) != MAGIC || number(&head, 1) != 1 {
            return Err(format!("{path}: is no log of version 1").into());
        }
        let (count, sector_size) = (number(&head, 2), number(&head, 3) & 0xffff_ffff);
        let mut log = Self { file, sector_size, entries: Vec::new() };
        let mut at = sector_size;
        for _ in 0..count {
            let entry = log.read(at)?;
            let data = if entry.flags & DISCARD == 0 { entry.sectors * sector_size } else { 0 };
            at = entry.at + data;
            log.entries.push(entry);
        }
        Ok(log)
    }

    fn read(&self, at: u64) -> Result<Entry> {
        let mut bytes = vec![0; usize::try_from(self.sector_size)?];
        self.file.read_exact_at(&mut bytes, at)?;
        let (flags, length) = (number(&bytes, 2), usize::try_from(number(&bytes, 3))?);
        let text = if flags & MARK == 0 { &[][..] } else { &bytes[32..32 + length] };
        Ok(Entry {
            sector: number(&bytes, 0),
            sectors: number(&bytes, 1),
            flags,
            text: String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
            at: at + self.sector_size,
        })
    }

    /// Prints what to do to see every state that a disk may have had when power went: first, up to `torn`
    /// times a flush, `tear FROM TO MARK SEED`, which is to be done on a copy; then `apply FROM TO MARK` to
    /// each point where data became durable. MARK is the last mark before it (`-`: none).
    pub(crate) fn plan(&self, torn: u64) -> Result<()> {
        let (mut mark, mut done, mut flushed) = ("-", 0, 0);
        let mut lines = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let to = index + 1;
            if entry.flags & MARK != 0 && entry.text != LAST {
                mark = &entry.text;
            } else if entry.flags & (FLUSH | FUA) != 0 {
                lines.push(format!("apply {done} {to} {mark}"));
                done = to;
            }
            // A flush with nothing before it has nothing to tear.
            if entry.flags & FLUSH != 0 {
                if to - flushed > 1 {
                    (0..torn).for_each(|n| {
                        let seed = index as u64 * 1000 + n;
                        println!("tear {flushed} {to} {mark} {seed}");
                    });
                }
                lines.drain(..).for_each(|line| println!("{line}"));
                flushed = to;
            }
        }
        lines.drain(..).for_each(|line| println!("{line}"));
        // What was acknowledged after the last flush.
        println!("apply {done} {} {mark}", self.entries.len());
        Ok(())
    }

    /// Writes the entries from `from` up to `to`.
    pub(crate) fn apply(&self, device: &str, from: usize, to: usize) -> Result<()> {
        let device = OpenOptions::new().write(true).open(device)?;
        self.range(from, to)?.iter().try_for_each(|entry| self.write(&device, entry))
    }

    /// Writes what a disk may hold if power goes before the last of these entries, a flush, is done: of what
    /// was not flushed any part may be missing, in any order.
    pub(crate) fn tear(&self, device: &str, from: usize, to: usize, seed: u64) -> Result<()> {
        let device = OpenOptions::new().write(true).open(device)?;
        let mut numbers = Numbers::new(seed);
        // Between nothing at all and all of it.
        let share = numbers.next() % 5;
        let [before @ .., _flush] = self.range(from, to)? else { return Ok(()) };
        for entry in before {
            if entry.flags & FUA != 0 || numbers.next() % 4 < share {
                self.write(&device, entry)?;
            }
        }
        Ok(())
    }

    fn range(&self, from: usize, to: usize) -> Result<&[Entry]> {
        let count = self.entries.len();
        self.entries.get(from..to).ok_or_else(|| format!("the log has {count} entries").into())
    }

    fn write(&self, device: &File, entry: &Entry) -> Result<()> {
        if entry.flags & DISCARD != 0 {
            return Err("a discard in the log: mount without it".into());
        }
        let mut bytes = vec![0; usize::try_from(entry.sectors * self.sector_size)?];
        self.file.read_exact_at(&mut bytes, entry.at)?;
        device.write_all_at(&bytes, entry.sector * self.sector_size)?;
        Ok(())
    }
}

/// The `index`th u64.
fn number(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
    u64::from_le_bytes(word)
}
