//! A directory tree as data: walk it, remove it, measure it, copy it, compare two of them.
//!
//! Everything here runs inside the user namespace of a box, as its uid 0 with the file capabilities, and
//! works on descriptors: a name is one component beneath an open directory, a symbolic link is never
//! followed, a mount is never crossed. Nothing recurses and at most a few dozen descriptors are open at
//! a time, so neither a deep nor a wide tree exhausts the stack or the descriptors. There is no global
//! state, so that a helper process can do any of it.
//!
//! | file | owns |
//! | --- | --- |
//! | `dir` | names of a directory, a child directory, the trail of open directories |
//! | `xattr` | extended attributes by descriptor |
//! | `walk` | the ordered walk |
//! | `remove` | taking a tree away |
//! | `usage` | what a tree takes on disk |
//! | `whiteout` | what overlayfs writes into an upper; the only file that knows these names |
//! | `measure` | the validating walk of a commit |
//! | `manifest` | digests of a layer, and what differs from them |
//! | `change` | what differs between two views |
//! | `merged` | several layers looked at as one, without a mount |
//! | `settle` | what was copied up and did not change leaves an upper |
//! | `unmake` | what was made to mount on leaves an upper |
//! | `fold` | one layer in the place of several |
//! | `attributes` | owner, attributes, mode and times of a file just made |
//! | `gather` | what is remembered of an upper |
//! | `meta` | the attribute that remembers owner and device of a file |
//! | `owners` | owners and devices that the disk cannot hold |
//! | `living` | what is remembered in the tree of a live run |
//! | `recall` | what the layers of a view remember of its paths |
//! | `inscribe` | remembered owners and devices onto a tree just filled |
//! | `copy` | a tree copied file by file |

use serde::{Deserialize, Serialize};

pub mod attributes;
pub mod change;
pub mod copy;
pub mod dir;
pub mod fold;
pub mod gather;
pub mod inscribe;
pub mod inside;
pub mod living;
pub mod manifest;
pub mod measure;
pub mod merged;
pub mod meta;
pub mod owners;
pub mod path;
pub mod recall;
pub mod remove;
pub mod settle;
pub mod strangers;
mod unmake;
pub mod usage;
pub mod walk;
pub mod whiteout;
pub mod xattr;

#[cfg(test)]
mod tests;

pub use change::{Change, ChangeKind, FileType, View, compare};
pub use copy::copy_tree;
pub use fold::fold;
pub use measure::measure;
pub use owners::{Device, Remembered};
pub use remove::{Removed, remove_tree};
pub use settle::settle;
pub use strangers::Strangers;
pub use unmake::unmake;
pub use walk::{Descend, Visit, Visitor, walk};

/// What a walk, a copy or an extraction counted. The root directory itself is not counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries on disk of every type, whiteouts included; each name of a hard-linked file counts.
    pub files: u64,
    /// Sizes of regular files in bytes, holes included, a hard-linked file once.
    pub bytes: u64,
    /// Sockets: `measure` found them, `copy` left them out.
    pub sockets: u64,
    /// Device nodes that were not made but remembered.
    pub devices: u64,
    /// Entries whose owner or group the id map cannot hold; they lie on disk as 0.
    pub unmapped: u64,
    /// Directories of the source that were copied empty: mount points, and the store that the copy goes to.
    pub mounts: u64,
    /// Extended attributes that the file system or the kernel refused to store.
    pub xattrs_lost: u64,
}

impl Totals {
    /// Adds the counts of another part of the same job.
    pub fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.sockets += other.sockets;
        self.devices += other.devices;
        self.unmapped += other.unmapped;
        self.mounts += other.mounts;
        self.xattrs_lost += other.xattrs_lost;
    }
}
