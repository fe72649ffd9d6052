//! The account of an ordinary user, for a tree that has none with that id: a line in copies of passwd and group that
//! are bound over them, and a home directory. No layer is written for it.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, OFlags, fstat};

use super::plan::Op;
use crate::ids::ORDINARY;
use crate::tree::inside;

/// The home directory of one that a tree does not know. It comes from the scaffold, so it is there without being a
/// change of anything; what is written to it is one, as everywhere.
pub const HOME: &str = "/home/user";

/// A file with accounts is read up to this size, as by the look-up of a user.
const LARGEST: u64 = 1 << 20;

/// A line of passwd or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id, the third field.
    pub id: u32,
    /// Its name: the first of these that the file does not have.
    pub names: [&'static str; 2],
    /// What follows the name.
    pub rest: String,
}

/// The steps that make an ordinary user known.
pub(super) fn ops() -> [Op; 2] {
    let step = |target: &str, rest: String| Op::Account {
        target: target.into(),
        entry: Entry { id: ORDINARY, names: ["user", "user1000"], rest },
    };
    [
        step("/etc/passwd", format!("x:{ORDINARY}:{ORDINARY}::{HOME}:/bin/sh")),
        step("/etc/group", format!("x:{ORDINARY}:")),
    ]
}

impl Entry {
    /// The file of the root that we are in, with this entry. None if it has one with this id, or is nothing that a
    /// look-up would read.
    pub(super) fn added_to(&self, target: &Path) -> Option<String> {
        self.added(&read(CWD, target)?)
    }

    fn added(&self, text: &str) -> Option<String> {
        let field = |number: usize, wanted: &str| {
            text.lines().any(|line| line.split(':').nth(number) == Some(wanted))
        };
        if field(2, &self.id.to_string()) {
            return None;
        }
        let name = self.names.iter().find(|name| !field(0, name))?;
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Some(format!("{text}{gap}{name}:{}\n", self.rest))
    }
}

/// A layer may have anything there, also a fifo or a file of gigabytes (CVE-2024-9676).
fn read(root: BorrowedFd<'_>, target: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = inside::open(root, target, flags).ok()?;
    let stat = fstat(&file).ok()?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(file).take(LARGEST + 1);
    if !regular || file.read_to_end(&mut bytes).ok()? as u64 > LARGEST {
        return None;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{Mode, mkfifoat};

    use super::*;

    fn entry() -> Entry {
        Entry { id: 1000, names: ["user", "user1000"], rest: "x:1000:".into() }
    }

    #[test]
    fn a_line_comes_at_the_end_of_what_is_there() {
        let added = |text: &str| entry().added(text);
        assert_eq!(added("").as_deref(), Some("user:x:1000:\n"));
        assert_eq!(added("root:x:0:\n").as_deref(), Some("root:x:0:\nuser:x:1000:\n"));
        assert_eq!(added("root:x:0:").as_deref(), Some("root:x:0:\nuser:x:1000:\n"));
        assert_eq!(added("user:x:5:\n").as_deref(), Some("user:x:5:\nuser1000:x:1000:\n"));
    }

    #[test]
    fn who_is_known_stays_as_he_is() {
        assert_eq!(entry().added("builder:x:1000:\n"), None);
        assert_eq!(entry().added("user:x:5:\nuser1000:x:6:\n"), None);
        assert!(entry().added("a:1000:5:\nb\n").is_some());
    }

    #[test]
    fn only_a_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "text").unwrap();
        std::os::unix::fs::symlink("/file", dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        mkfifoat(CWD, dir.path().join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let read = |name: &str| read(root.as_fd(), Path::new(name));
        assert_eq!(read("/file").as_deref(), Some("text"));
        assert_eq!(read("/link").as_deref(), Some("text"));
        for name in ["/fifo", "/none", "/dir"] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
