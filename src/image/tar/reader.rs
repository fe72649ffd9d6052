//! The entries of a tar stream: headers taken together with what extends them.
//!
//! Read: ustar, GNU (long names, base-256 numbers, sparse) and PAX. The `tar` crate parses the fixed
//! header; the extended ones are ours, because it splits PAX records at line ends, which binary attributes
//! contain, and does not read PAX sparse files.

use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::pax::{self, Records};
use super::sparse::{self, Stretch};
use crate::fault::{Fault, Result, printable};

const BLOCK: usize = 512;

/// Most bytes of one extended header. Attributes have at most 64 KiB each, see xattr(7).
const LONGEST_EXTENSION: u64 = 4 << 20;

/// Largest size that the octal field of a header holds.
const LARGEST_OCTAL: u64 = 0o77_777_777_777;

/// One entry, as the archive tells it: nothing in it is checked but its form.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    /// Size of the file in bytes, holes included.
    pub(super) size: u64,
    pub(super) sparse: Option<Vec<Stretch>>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timespec,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A fault of this entry, `Failed`.
    pub(super) fn fault(&self, why: &str) -> Fault {
        fault_at(&self.path, why)
    }
}

fn fault_at(path: &[u8], why: &str) -> Fault {
    Fault::failed(format!("extract: {}: {why}", printable(&String::from_utf8_lossy(path))))
}

/// A tar stream.
pub(super) struct Reader<'a> {
    input: &'a mut dyn Read,
    /// Bytes of the current entry that were not read yet, without padding.
    left: u64,
    padding: u64,
    global: Records,
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, left: 0, padding: 0, global: Records::new() }
    }

    /// The next entry; `None` after the end mark. Content of the one before that was not read is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else { return self.drain().map(|()| None) };
            let stored = header.entry_size().map_err(|_| broken("a malformed size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(self.name(stored)?),
                EntryType::GNULongLink => extended.link = Some(self.name(stored)?),
                EntryType::XHeader => {
                    extended.records = pax::parse(&self.extension(stored)?).map_err(broken)?;
                }
                EntryType::XGlobalHeader => self.take_global(stored)?,
                // A volume label: a name without a file.
                EntryType::__Nonexhaustive(b'V') => self.begin(stored),
                _ => return self.entry(&header, stored, extended).map(Some),
            }
        }
    }

    /// Content of the current entry; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            match self.input.read(&mut buffer[..most]) {
                Ok(0) => return Err(early()),
                Ok(len) => {
                    self.left -= len as u64;
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&error)),
            }
        }
    }

    fn begin(&mut self, stored: u64) {
        self.left = stored;
        // How far it is to the next full block; the size may be any number here.
        self.padding = stored.wrapping_neg() % BLOCK as u64;
    }

    /// The next header block; `None` for the end mark.
    fn header(&mut self) -> Result<Option<Header>> {
        let rest = self.left.checked_add(self.padding).ok_or_else(|| broken("a malformed size"))?;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut Read::take(&mut *self.input, rest), &mut io::sink());
        if skipped.map_err(|error| unreadable(&error))? < rest {
            return Err(early());
        }
        let block = self.block()?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
            return Err(broken("no tar header where one must be, or its checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(|error| match error.get_ref() {
            None if error.kind() == io::ErrorKind::UnexpectedEof => early(),
            _ => unreadable(&error),
        })?;
        Ok(block)
    }

    /// Reads what follows the end mark, so that a decompressor checks its last checksum and whoever
    /// writes into a pipe can end.
    fn drain(&mut self) -> Result<()> {
        io::copy(self.input, &mut io::sink()).map(drop).map_err(|error| unreadable(&error))
    }

    /// The whole content of an extension header.
    fn extension(&mut self, stored: u64) -> Result<Vec<u8>> {
        if stored > LONGEST_EXTENSION {
            return Err(broken("an extended header that is too long"));
        }
        self.begin(stored);
        let mut data = vec![0; usize::try_from(stored).unwrap_or(0)];
        let mut len = 0;
        while len < data.len() {
            len += self.read(&mut data[len..])?;
        }
        Ok(data)
    }

    /// A long name of GNU tar, without the NUL that ends it.
    fn name(&mut self, stored: u64) -> Result<Vec<u8>> {
        let mut name = self.extension(stored)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn take_global(&mut self, stored: u64) -> Result<()> {
        let records = pax::parse(&self.extension(stored)?).map_err(broken)?;
        let personal: [&[u8]; 3] = [b"path", b"linkpath", b"size"];
        if records.iter().any(|(key, _)| personal.contains(&&key[..])) {
            return Err(broken("a global header that names one file"));
        }
        self.global.extend(records);
        Ok(())
    }

    fn entry(&mut self, header: &Header, stored: u64, extended: Extended) -> Result<Entry> {
        let Extended { path, link, records } = extended;
        let mut entry = Entry {
            path: path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: link.or_else(|| header.link_name_bytes().map(Into::into)).unwrap_or_default(),
            kind: header.entry_type(),
            size: stored,
            sparse: None,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timespec { tv_sec: 0, tv_nsec: 0 },
            device: (0, 0),
            xattrs: Vec::new(),
        };
        let at = entry.path.clone();
        fixed(&mut entry, header).map_err(|why| fault_at(&at, why))?;
        let mut stored = stored;
        for (key, value) in self.global.iter().chain(&records) {
            record(&mut entry, &mut stored, key, value).map_err(|why| fault_at(&at, why))?;
        }
        entry.size = stored;
        self.begin(stored);
        match header.entry_type() {
            EntryType::GNUSparse => self.gnu_sparse(&mut entry, header)?,
            _ => self.pax_sparse(&mut entry, &records)?,
        }
        if let Some(map) = &entry.sparse {
            sparse::check(map, entry.size, self.left).map_err(|why| entry.fault(why))?;
        }
        Ok(entry)
    }

    fn pax_sparse(&mut self, entry: &mut Entry, records: &Records) -> Result<()> {
        let found = sparse::described(records).map_err(|why| entry.fault(why))?;
        if let Some(name) = found.name {
            entry.path = name;
        }
        if found.map_in_data {
            entry.sparse = Some(self.map_before_data(entry)?);
        } else {
            entry.sparse = found.map;
        }
        if let (Some(size), true) = (found.size, entry.sparse.is_some()) {
            entry.size = size;
        }
        Ok(())
    }

    /// Version 1.0: count, then offset and length in turn, a decimal number a line, up to a full block.
    fn map_before_data(&mut self, entry: &Entry) -> Result<Vec<Stretch>> {
        let broken = || entry.fault("a malformed sparse map");
        let mut numbers: Vec<u64> = Vec::new();
        let mut text = Vec::new();
        loop {
            let mut block = [0; BLOCK];
            let mut len = 0;
            while len < BLOCK {
                match self.read(&mut block[len..])? {
                    0 => return Err(broken()),
                    n => len += n,
                }
            }
            for byte in block {
                if byte != b'\n' {
                    text.push(byte);
                    continue;
                }
                numbers.push(pax::number(&text).ok_or_else(broken)?);
                text.clear();
                let count = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
                if count > sparse::MOST {
                    return Err(broken());
                }
                if numbers.len() == 1 + 2 * count {
                    return sparse::pairs(&numbers[1..]).map_err(|why| entry.fault(why));
                }
            }
            if text.len() > BLOCK {
                return Err(broken());
            }
        }
    }

    /// Type `S`: four stretches in the header, more in blocks that follow it.
    fn gnu_sparse(&mut self, entry: &mut Entry, header: &Header) -> Result<()> {
        let broken = |_| fault_at(&entry.path, "a malformed sparse map");
        let gnu = header.as_gnu().ok_or_else(|| entry.fault("a sparse file without GNU header"))?;
        entry.size = gnu.real_size().map_err(broken)?;
        let mut map = Vec::new();
        take(&gnu.sparse, &mut map).map_err(broken)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            *block.as_mut_bytes() = self.block()?;
            take(&block.sparse, &mut map).map_err(broken)?;
            more = block.is_extended();
            if map.len() > sparse::MOST {
                return Err(entry.fault("a malformed sparse map"));
            }
        }
        entry.sparse = Some(map);
        Ok(())
    }
}

fn take(found: &[GnuSparseHeader], map: &mut Vec<Stretch>) -> io::Result<()> {
    for stretch in found.iter().filter(|stretch| !stretch.is_empty()) {
        map.push((stretch.offset()?, stretch.length()?));
    }
    Ok(())
}

/// The fields of the fixed header. Blank ones are 0, as other readers take them.
fn fixed(entry: &mut Entry, header: &Header) -> Result<(), &'static str> {
    let raw = header.as_old();
    let read = |field: &[u8], found: io::Result<u64>, why| {
        let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
        if blank { Ok(0) } else { found.map_err(|_| why) }
    };
    let mode = read(&raw.mode, header.mode().map(u64::from), "a malformed mode")?;
    entry.mode = u32::try_from(mode).map_err(|_| "a malformed mode")?;
    entry.uid = id(read(&raw.uid, header.uid(), "a malformed owner")?)?;
    entry.gid = id(read(&raw.gid, header.gid(), "a malformed group")?)?;
    // GNU tar writes times before 1970 in base 256, as two's complement.
    entry.mtime.tv_sec = read(&raw.mtime, header.mtime(), "a malformed time")?.cast_signed();
    let number = |found: io::Result<Option<u32>>| found.ok().flatten();
    entry.device =
        (number(header.device_major()).unwrap_or(0), number(header.device_minor()).unwrap_or(0));
    Ok(())
}

/// One PAX record.
fn record(
    entry: &mut Entry,
    stored: &mut u64,
    key: &[u8],
    value: &[u8],
) -> Result<(), &'static str> {
    let number = || pax::number(value).ok_or("a malformed number");
    match key {
        b"path" => entry.path = value.to_vec(),
        b"linkpath" => entry.link = value.to_vec(),
        b"uid" => entry.uid = id(number()?)?,
        b"gid" => entry.gid = id(number()?)?,
        b"mtime" => entry.mtime = pax::time(value).ok_or("a malformed time")?,
        b"size" => *stored = size(*stored, number()?)?,
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Two sizes that disagree let one reader see entries that another does not (CVE-2026-33055). The header
/// may only be silent (0) or at its end about a size that its field cannot hold.
fn size(header: u64, pax: u64) -> Result<u64, &'static str> {
    let silent = pax > LARGEST_OCTAL && (header == 0 || header == LARGEST_OCTAL);
    if header == pax || silent { Ok(pax) } else { Err("two sizes that disagree") }
}

/// An id: 4294967295 means "leave as it is" to chown(2) and is nobody's.
fn id(found: u64) -> Result<u32, &'static str> {
    match u32::try_from(found) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err("an owner or group beyond 32 bits"),
    }
}

fn broken(why: &'static str) -> Fault {
    Fault::failed(format!("read archive: {why}"))
}

fn early() -> Fault {
    Fault::failed("read archive: it ends too early: was it cut off?")
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::failed(format!("read archive: {}", printable(&error.to_string())))
}
