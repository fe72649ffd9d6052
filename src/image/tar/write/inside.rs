//! What is written of a file that the disk has otherwise: its owner, or that it is a device.

use rustix::fs::{FileType, Stat, major, minor};
use tar::EntryType;

use super::Writer;
use crate::fault::{Context, Result};
use crate::tree::dir::kind;
use crate::tree::owners::{Device, DeviceClass};
use crate::tree::recall::Place;

/// Owner and group.
pub(super) type Owner = (u32, u32);

/// Which node a real device is.
pub(super) fn node_of(stat: &Stat) -> Device {
    let class = match kind(stat) {
        FileType::BlockDevice => DeviceClass::Block,
        _ => DeviceClass::Char,
    };
    Device { class, major: major(stat.st_rdev), minor: minor(stat.st_rdev) }
}

/// The same file, of this owner and group.
pub(super) fn owned_by(mut stat: Stat, (uid, gid): Owner) -> Stat {
    (stat.st_uid, stat.st_gid) = (uid, gid);
    stat
}

impl Writer<'_> {
    /// The file as it is inside.
    pub(super) fn inside(
        &mut self,
        at: &[u8],
        place: Place<'_>,
        stat: &Stat,
    ) -> Result<(Stat, Option<Device>)> {
        let Some(memory) = self.memory else { return Ok((*stat, None)) };
        let known = memory.of(self.source.beneath(at), place, stat);
        let known = known.context("look at", self.source.shown(at))?;
        let owner = (known.uid.unwrap_or(stat.st_uid), known.gid.unwrap_or(stat.st_gid));
        let stat = owned_by(*stat, owner);
        if let Some(first) = self.linked.get_mut(&(stat.st_dev, stat.st_ino)) {
            first.1 = owner;
        }
        Ok((stat, known.device))
    }

    /// Writes a device.
    pub(super) fn node(&mut self, at: &[u8], stat: &Stat, device: Device) -> Result<()> {
        let kind = match device.class {
            DeviceClass::Block => EntryType::Block,
            DeviceClass::Char => EntryType::Char,
        };
        let mut header = self.header(stat, kind);
        let fits = header.set_device_major(device.major).and(header.set_device_minor(device.minor));
        fits.context("write device", self.source.shown(at))?;
        self.head(header, at, b"", stat, Vec::new())
    }
}
