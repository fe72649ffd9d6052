//! Tests with archives made in memory, honest and hostile.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use tar::{EntryType, Header};
use tempfile::TempDir;

use crate::fault::{Fault, Result};
use crate::ids::{Extent, IdMap, Mode as IdMode};
use crate::image::tar::extract;
use crate::tree::owners::settle;
use crate::tree::{Remembered, Totals, measure};

mod archives;
mod honest;
mod hostile;
mod round_trip;
mod sources;
mod written;

fn temp() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A map that holds our own ids only. As uid 0 that is the `single` map of a plain user.
fn own_ids() -> IdMap {
    let one = |id| vec![Extent { inside: id, outside: id, count: 1 }];
    IdMap { mode: IdMode::Single, uids: one(me().0), gids: one(me().1) }
}

fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).expect("directory opens")
}

fn unpack(archive: &[u8], to: &Path) -> Result<(Totals, Vec<Remembered>)> {
    let mut owners = Vec::new();
    let before = measure(open(to).as_fd())?;
    let totals = extract(&mut &archive[..], open(to).as_fd(), &own_ids(), &mut owners)?;
    // What is written into the record of the layer is what lies there.
    match measure(open(to).as_fd()) {
        Ok(there) if before.files == 0 => {
            assert_eq!((totals.files, totals.bytes), (there.files, there.bytes));
        }
        Ok(_) => {}
        // A plain user, outside of a namespace, cannot look into a directory that is closed.
        Err(fault) => assert!(!rustix::process::geteuid().is_root(), "{fault}"),
    }
    settle(&mut owners);
    Ok((totals, owners))
}

fn refused(archive: &[u8]) -> Fault {
    unpack(archive, temp().path()).expect_err("the archive must be refused")
}

/// An archive written header by header, so that it can be wrong.
#[derive(Default)]
struct Raw {
    bytes: Vec<u8>,
}

impl Raw {
    fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        let len = name.len().min(100);
        header.as_mut_bytes()[..len].copy_from_slice(&name[..len]);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(me().0.into());
        header.set_gid(me().1.into());
        header.set_mtime(1_000_000_000);
        header
    }

    fn add(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.add(Self::header(EntryType::Regular, name, content.len() as u64), content)
    }

    fn dir(self, name: &[u8], mode: u32) -> Self {
        let mut header = Self::header(EntryType::Directory, name, 0);
        header.set_mode(mode);
        self.add(header, b"")
    }

    fn link(self, kind: EntryType, name: &[u8], target: &[u8]) -> Self {
        let mut header = Self::header(kind, name, 0);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target);
        self.add(header, b"")
    }

    fn symlink(self, name: &[u8], target: &[u8]) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    fn device(self, kind: EntryType, name: &[u8], major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, name, 0);
        header.set_device_major(major).expect("major");
        header.set_device_minor(minor).expect("minor");
        self.add(header, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(EntryType::XHeader, records)
    }

    fn extended(self, kind: EntryType, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            content.extend_from_slice(format!("{len} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.add(Self::header(kind, b"pax", content.len() as u64), &content)
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}
