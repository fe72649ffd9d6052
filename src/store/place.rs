//! On what a store may lie: by the magic numbers of statfs(2) and, where nobody is in a hurry, by the names of mounts.

use std::os::fd::AsFd;

use rustix::fs::{fstat, fstatfs, major, minor};
use rustix::io::Errno;

/// The file system of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name, or its number.
    pub name: String,
    /// Whether it can be the upper of an overlay, as far as its kind tells: not what is one itself, nor what asks a
    /// server or a program about its names (the kernel refuses these).
    pub holds_uppers: bool,
}

/// The file system that `dir` lies on.
///
/// # Errors
/// What fstatfs(2) says.
pub fn file_system(dir: impl AsFd) -> Result<FileSystem, Errno> {
    // The magic numbers have 32 bits; the field is wider on some machines, and signed.
    Ok(known(u64::from(fstatfs(dir)?.f_type as u32)))
}

/// The same for one who has time: a client of 9p gives statfs(2) the answer of its server's own file system, and only
/// the mount is named truly.
///
/// # Errors
/// What fstatfs(2) and fstat(2) say.
pub fn file_system_for_sure(dir: impl AsFd) -> Result<FileSystem, Errno> {
    let found = file_system(&dir)?;
    let device = fstat(&dir)?.st_dev;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mounted_as(&mounts, &format!("{}:{}", major(device), minor(device))) {
        Some("9p") => Ok(known(NINE_P)),
        _ => Ok(found),
    }
}

/// The kind of the mounts of a device (`MAJOR:MINOR`), in the text of mountinfo (proc(5)).
fn mounted_as<'t>(mounts: &'t str, device: &str) -> Option<&'t str> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

const NINE_P: u64 = 0x0102_1997;

fn known(magic: u64) -> FileSystem {
    let (name, holds_uppers) = match magic {
        0xef53 => ("ext4", true),
        0x5846_5342 => ("xfs", true),
        0x9123_683e => ("btrfs", true),
        0x0102_1994 => ("tmpfs", true),
        0xf2f5_2010 => ("f2fs", true),
        0x2fc1_2fc1 => ("zfs", true),
        0xca45_1a4e => ("bcachefs", true),
        0x794c_7630 => ("overlayfs", false),
        0x6969 => ("NFS", false),
        NINE_P => ("9p", false),
        0x6573_5546 => ("FUSE", false),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => ("SMB", false),
        0x00c3_6400 => ("Ceph", false),
        0x5346_414f | 0x6b41_4653 => ("AFS", false),
        0xf15f => ("ecryptfs", false),
        0x7371_7368 => ("squashfs", false),
        0xe0f5_e1e2 => ("erofs", false),
        other => {
            return FileSystem { name: format!("file system {other:#x}"), holds_uppers: true };
        }
    };
    FileSystem { name: name.to_owned(), holds_uppers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let text = "22 1 0:21 / /proc rw - proc proc rw\n\
            35 22 0:40 / /a\\040b rw,relatime shared:9 master:1 - 9p share rw,trans=virtio\n\
            36 22 0:41 / /c rw - fuse.bindfs /d rw\n";
        assert_eq!(mounted_as(text, "0:40"), Some("9p"));
        assert_eq!(mounted_as(text, "0:41"), Some("fuse.bindfs"));
        assert_eq!(mounted_as(text, "0:4"), None);
        assert_eq!(mounted_as("broken\n", "0:4"), None);
        let here = std::fs::File::open("/proc").expect("open");
        assert_eq!(file_system_for_sure(&here).expect("both"), file_system(&here).expect("one"));
    }

    #[test]
    fn kinds_are_known_by_their_numbers() {
        assert!(known(0xef53).holds_uppers && known(0x1234).holds_uppers);
        for magic in [0x794c_7630, 0x6969, 0x0102_1997, 0x6573_5546, 0xfe53_4d42] {
            assert!(!known(magic).holds_uppers, "{magic:#x}");
        }
        assert_eq!(known(0x1234).name, "file system 0x1234");
        let here = std::fs::File::open("/proc").expect("open");
        assert_eq!(file_system(here).expect("statfs").name, "file system 0x9fa0");
    }
}
