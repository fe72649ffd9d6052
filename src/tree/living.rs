//! What is remembered in the tree of a run that is not over: by attributes, by the journal of its handler, and by the
//! layers beneath.
//!
//! Only its mounted root is there to be looked at, whose overlay shows of a file of a layer the number of that file, also
//! after it was copied up: as layers do not change, no other file has that number. What is believed is what a commit of
//! the run would believe ([`super::gather`]).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::dir::{kind, mount_of};
use super::gather::{has_said, inode, on_disk, only_root_could, read};
use super::meta::{Journal, Meta};
use super::owners::{Device, Remembered};
use super::recall::{Inside, Memory, Place};
use crate::fault::{Context, Result as FaultResult};
use crate::ids::IdMap;

/// The memory of a live run.
#[derive(Debug)]
pub struct Living<'a> {
    map: IdMap,
    journal: Journal,
    layers: &'a [(BorrowedFd<'a>, &'a [Remembered])],
    /// What the layers remember of links, fifos, sockets and devices, by the numbers of their files: once somebody asks,
    /// for each of these is looked at.
    beneath: OnceCell<HashMap<u64, (Stat, Inside)>>,
    /// The mount of the root: what lies on others is not of the run.
    mount: u64,
    /// As for a commit ([`super::gather::Sources`]).
    plain: bool,
}

impl<'a> Living<'a> {
    /// Of a run with this root, map and journal, on these layers, each with what it remembers. To be called inside.
    ///
    /// # Errors
    /// What statx(2) says.
    pub fn new(
        root: BorrowedFd<'_>,
        map: &IdMap,
        journal: Journal,
        layers: &'a [(BorrowedFd<'a>, &'a [Remembered])],
        plain: bool,
    ) -> FaultResult<Self> {
        let mount = mount_of(root).context("look at", "the root of a run")?;
        Ok(Self { map: map.clone(), journal, layers, beneath: OnceCell::new(), mount, plain })
    }

    /// What a layer remembers of the file of this number.
    fn beneath(&self, number: u64) -> Result<Option<&(Stat, Inside)>, Errno> {
        if let Some(known) = self.beneath.get() {
            return Ok(known.get(&number));
        }
        let mut known = HashMap::new();
        for (layer, entries) in self.layers {
            for entry in *entries {
                if let Some((inode, stat)) = on_disk(*layer, entry)?
                    && (entry.device.is_some() || kind(&stat) != FileType::RegularFile)
                {
                    known.insert(inode.number, (stat, entry.into()));
                }
            }
        }
        Ok(self.beneath.get_or_init(|| known).get(&number))
    }

    fn counted(&self, meta: Meta, stat: &Stat) -> Inside {
        let Meta { uid, gid, device, .. } = meta.counted((stat.st_uid, stat.st_gid), &self.map);
        Inside { uid, gid, device }
    }

    fn is_true_device(
        &self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        device: Device,
    ) -> Result<bool, Errno> {
        if only_root_could(stat, &self.map) {
            return Ok(true);
        }
        let inode = inode(file, c"", AtFlags::EMPTY_PATH)?;
        if self.journal.get(&inode).is_some_and(|noted| noted.device == Some(device)) {
            return Ok(true);
        }
        let beneath = self.beneath(inode.number)?;
        Ok(beneath.is_some_and(|(_, known)| known.device == Some(device)))
    }

    fn link(&self, place: Place<'_>, stat: &Stat) -> Result<Inside, Errno> {
        let inode = match place {
            Place::Open(file) => inode(file, c"", AtFlags::EMPTY_PATH)?,
            Place::Entry(dir, name) => inode(dir, name, AtFlags::SYMLINK_NOFOLLOW)?,
        };
        let mut meta =
            self.journal.get(&inode).unwrap_or(Meta { unset: (true, true), ..Meta::default() });
        // As in a commit: what is made anew has another time.
        let parts = |stat: &Stat| (kind(stat), stat.st_mtime, stat.st_mtime_nsec, stat.st_size);
        if !meta.is_whole()
            && let Some((beneath, known)) = self.beneath(inode.number)?
            && parts(beneath) == parts(stat)
        {
            let on = (beneath.st_uid, beneath.st_gid);
            meta = meta.on_top_of(Meta { uid: known.uid, gid: known.gid, on, ..Meta::default() });
        }
        Ok(Inside { device: None, ..self.counted(meta, stat) })
    }
}

impl Memory for Living<'_> {
    fn of(&self, _: &[u8], place: Place<'_>, stat: &Stat) -> Result<Inside, Errno> {
        let mount = match place {
            Place::Open(fd) | Place::Entry(fd, _) => mount_of(fd)?,
        };
        if mount != self.mount {
            return Ok(Inside::default());
        }
        let (Place::Open(fd), FileType::Directory | FileType::RegularFile) = (place, kind(stat))
        else {
            return self.link(place, stat);
        };
        let believes =
            |meta: &Meta| !self.plain || self.layers.iter().any(|(_, known)| has_said(known, meta));
        let Some(meta) = read(fd)?.filter(believes) else { return Ok(Inside::default()) };
        let mut inside = self.counted(meta, stat);
        if let Some(device) = inside.device
            && (kind(stat) == FileType::Directory || !self.is_true_device(fd, stat, device)?)
        {
            inside.device = None;
        }
        Ok(inside)
    }
}
