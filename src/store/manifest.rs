//! The file `manifest` of a layer: the lines of [`crate::tree::manifest`], then two of the store's own.
//!
//! ```text
//! {"path":"","type":"dir",...}
//! ...
//! {"lines":9,"owners":null,"record":{"id":...}}
//! {"sha256":"..."}
//! ```
//!
//! The last line is the digest of all bytes before it, so that a torn or changed manifest shows itself. The
//! line before says how many lines of the tree there are, the digest of the file `owners`, and all of the
//! record: from here a lost `layer.json` is made again.

use std::os::fd::OwnedFd;

use rustix::fs::{fsync, renameat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::failpoint::step;
use super::{LayerId, LayerRecord, Run, SharedLock, Store, file, json_line, layout};
use crate::fault::{Context, Fault, Result, is_of_the_disk};
use crate::tree::manifest::hex;

/// A manifest is not read beyond this; a million entries take a fifth of it.
const LIMIT: usize = 2 << 30;

/// The digests of a layer, whole and of this layer.
#[derive(Debug)]
pub struct Manifest {
    /// The lines of the tree.
    pub lines: Vec<u8>,
    /// The record, as it was.
    pub record: LayerRecord,
    /// The digest of `owners`, if there was one.
    pub owners: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Totals {
    lines: u64,
    owners: Option<String>,
    record: LayerRecord,
}

#[derive(Serialize, Deserialize)]
struct Seal {
    sha256: String,
}

impl Run {
    /// The file for the lines of the tree, of a layer that is to be published. What was in it is gone.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn begin_manifest(&self) -> Result<OwnedFd> {
        step("publish.manifest", || file::create(self.dir(), layout::LAYER_MANIFEST))
            .context("write manifest", self.id)
    }

    /// Removes what [`Run::begin_manifest`] has made, if it did.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub fn drop_manifest(&self) -> Result<()> {
        step("publish.manifest", || file::unlink(self.dir(), layout::LAYER_MANIFEST))
            .context("remove manifest", self.id)
    }

    /// Ends the manifest, whose lines are written, before [`Store::publish`] with this record and `owners`.
    /// It is synced there, with the files of the layer.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn end_manifest(&self, record: &LayerRecord, owners: Option<&[u8]>) -> Result<()> {
        let end = file::read_small(self.dir(), layout::LAYER_MANIFEST, LIMIT)
            .context("read manifest", self.id)
            .and_then(|lines| last_lines(&lines, record, owners))?;
        step("publish.manifest", || file::append(self.dir(), layout::LAYER_MANIFEST, &end))
            .context("write manifest", self.id)
    }
}

impl Store {
    /// The file for the lines of the tree of a layer that has no manifest yet.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn begin_seal(&self, id: &LayerId) -> Result<OwnedFd> {
        self.require_writable()?;
        step("seal.append", || file::create(self.dir(), &layout::new_manifest(id)))
            .context("write manifest", id)
    }

    /// Ends the manifest, whose lines are written, and puts it in its place, durably.
    ///
    /// # Errors
    /// What the system calls say, or what is wrong with the record. The layer then has no manifest, as
    /// before.
    pub fn end_seal(&self, _lock: &SharedLock, id: &LayerId) -> Result<()> {
        let (new, name) = (layout::new_manifest(id), layout::manifest(id));
        let sealed = self.end_lines(id).and_then(|end| {
            self.put_manifest(&new, &name, &end).context("write manifest", id)?;
            self.sync_folder("seal.fsync", &layout::layer(id))
        });
        if sealed.is_err() {
            self.give_up_seal(id);
        }
        sealed
    }

    fn put_manifest(&self, new: &str, name: &str, end: &[u8]) -> Result<(), Errno> {
        step("seal.append", || file::append(self.dir(), new, end))?;
        let file = file::open_file(self.dir(), new)?;
        step("seal.file.fsync", || fsync(&file))?;
        step("seal.rename", || renameat(self.dir(), new, self.dir(), name))
    }

    /// Takes back what [`Store::begin_seal`] has made. Best effort: it counts for nothing.
    pub fn give_up_seal(&self, id: &LayerId) {
        file::unlink(self.dir(), &layout::new_manifest(id)).ok();
    }

    fn end_lines(&self, id: &LayerId) -> Result<Vec<u8>> {
        let lines = file::read_small(self.dir(), &layout::new_manifest(id), LIMIT)
            .context("read manifest", id)?;
        let owners = self.layer_owners(id)?;
        last_lines(&lines, &self.layer(id)?, owners.as_deref())
    }

    /// The bytes of the file `owners` of a layer, if there is one.
    ///
    /// # Errors
    /// What reading it says.
    pub fn layer_owners(&self, id: &LayerId) -> Result<Option<Vec<u8>>> {
        let name = layout::owners(id);
        match file::read_small(self.dir(), &name, LIMIT) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.unread("read owners", &name, errno)),
        }
    }

    /// What the disk cannot read is damage.
    pub(super) fn unread(&self, what: &str, name: &str, errno: Errno) -> Fault {
        let fault = Fault::errno(what, self.show(name), errno);
        match is_of_the_disk(errno) {
            true => Fault::damaged(fault.message),
            false => fault,
        }
    }

    /// The manifest of a layer; none if it was never made.
    ///
    /// # Errors
    /// Damaged if it is not as it was written.
    pub fn manifest(&self, id: &LayerId) -> Result<Option<Manifest>> {
        let name = layout::manifest(id);
        let text = match file::read_small(self.dir(), &name, LIMIT) {
            Ok(text) => text,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.unread("read manifest", &name, errno)),
        };
        let manifest = parse(text).filter(|manifest| manifest.record.id == *id);
        manifest.map(Some).ok_or_else(|| {
            let shown = self.show(&name);
            Fault::damaged(format!("read manifest: {shown}: it is not as it was written"))
        })
    }

    /// Whether the file `owners` of a layer is the one that the manifest was made with.
    ///
    /// # Errors
    /// What reading it says.
    pub fn fits_owners(&self, id: &LayerId, manifest: &Manifest) -> Result<bool> {
        let owners = self.layer_owners(id)?;
        Ok(manifest.owners == owners.map(|bytes| hex(&Sha256::digest(bytes))))
    }

    /// Whether a layer has a manifest, whatever is in it.
    pub(super) fn is_sealed(&self, id: &LayerId) -> bool {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statat(self.dir(), layout::manifest(id), flags).is_ok()
    }
}

fn last_lines(lines: &[u8], record: &LayerRecord, owners: Option<&[u8]>) -> Result<Vec<u8>> {
    let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    let owners = owners.map(|bytes| hex(&Sha256::digest(bytes)));
    let mut end = json_line(&Totals { lines: count, owners, record: record.clone() })?;
    let mut digest = Sha256::new();
    digest.update(lines);
    digest.update(&end);
    end.extend(json_line(&Seal { sha256: hex(&digest.finalize()) })?);
    Ok(end)
}

/// Takes a manifest apart; `None` if anything is wrong with it.
fn parse(mut text: Vec<u8>) -> Option<Manifest> {
    let seal = cut_line(&mut text)?;
    let seal: Seal = serde_json::from_slice(&seal).ok()?;
    if seal.sha256 != hex(&Sha256::digest(&text)) {
        return None;
    }
    let totals = cut_line(&mut text)?;
    let totals: Totals = serde_json::from_slice(&totals).ok()?;
    let count = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    (totals.lines == count).then_some(Manifest {
        lines: text,
        record: totals.record,
        owners: totals.owners,
    })
}

/// Takes the last line away, which must end with a newline.
fn cut_line(text: &mut Vec<u8>) -> Option<Vec<u8>> {
    let body = text.strip_suffix(b"\n")?;
    let start = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Some(text.split_off(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_that_changes_shows() {
        let id = LayerId::random().expect("id");
        let record: LayerRecord = serde_json::from_value(serde_json::json!({
            "id": id, "parent": null, "depth": 0, "mount": [id],
            "created": "2026-01-01T00:00:00Z", "files": 1, "own_bytes": 2,
        }))
        .expect("record");
        let mut text = b"{\"path\":\"\"}\n{\"path\":\"a\"}\n".to_vec();
        text.extend(last_lines(&text.clone(), &record, Some(b"x")).expect("lines"));
        let whole = parse(text.clone()).expect("whole");
        assert_eq!(whole.record, record);
        assert_eq!(whole.owners, Some(hex(&Sha256::digest(b"x"))));
        assert_eq!(whole.lines.len(), 25);
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(parse(changed).is_none(), "byte {at}");
            assert!(parse(text[..at].to_vec()).is_none(), "cut at {at}");
        }
    }
}
