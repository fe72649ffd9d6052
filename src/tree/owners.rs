//! Owners, modes and devices that the disk cannot hold, remembered beside a layer in its file `owners`.
//!
//! The file is text: one JSON object a line, sorted by path, one line a path.
//!
//! ```text
//! {"path":"dev/null","uid":0,"gid":0,"mode":438,"device":{"type":"char","major":1,"minor":3}}
//! {"path":"var/mail","gid":8,"mode":1533}
//! ```
//!
//! `path` (or `path_bytes`, base64, if it is not UTF-8) lies beneath the root of the layer. `uid`, `gid` and
//! `mode` (permission bits, 12 bits) are what the entry truly has, each only where it is known to differ
//! from the disk or could not be stored. With `device` an empty file lies on disk at this path (in layers of
//! earlier versions nothing). Unknown fields are ignored.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use super::path;
use crate::fault::{Context, Fault, Result};

/// A device node that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Character or block.
    #[serde(rename = "type")]
    pub class: DeviceClass,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// The two classes of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceClass {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// What is remembered of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Beneath the root of the layer, without a leading `/`; empty for the root itself.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// The owner inside, if it is not the one on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group inside, if it is not the one on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The permission bits, 12 bits, given where owner or group are or where there is a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The device node that is not on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

impl Remembered {
    /// Whether there is nothing to remember but the path.
    pub fn is_empty(&self) -> bool {
        self.uid.is_none() && self.gid.is_none() && self.mode.is_none() && self.device.is_none()
    }
}

/// Sorts by path; of several entries with one path the last one stays. Entries without content go.
pub fn settle(entries: &mut Vec<Remembered>) {
    entries.reverse();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|later, first| later.path == first.path);
    entries.retain(|entry| !entry.is_empty());
}

/// Writes the file. The entries must be in order, as [`settle`] leaves them.
///
/// # Errors
/// `Failed` for entries out of order; what the writer says.
pub fn write(entries: &[Remembered], out: &mut dyn Write) -> Result<()> {
    if !entries.is_sorted_by(|a, b| a.path < b.path) {
        return Err(Fault::failed("write owners: the entries are not in order"));
    }
    for entry in entries {
        let line = serde_json::to_string(entry)
            .map_err(|error| Fault::failed(format!("write owners: {error}")))?;
        writeln!(out, "{line}").context("write", "owners")?;
    }
    Ok(())
}

/// Reads the file.
///
/// # Errors
/// `Damaged` for a line that is no such record or is out of order; what the reader says.
pub fn read(input: &mut dyn BufRead) -> Result<Vec<Remembered>> {
    let mut entries: Vec<Remembered> = Vec::new();
    for (number, line) in input.lines().enumerate() {
        let line = line.context("read", "owners")?;
        let damaged =
            |why: &str| Fault::damaged(format!("read owners: line {}: {why}", number + 1));
        let entry: Remembered =
            serde_json::from_str(&line).map_err(|error| damaged(&error.to_string()))?;
        if entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(damaged("out of order"));
        }
        entries.push(entry);
    }
    Ok(entries)
}
