//! The attribute `user.sandbox.meta`: the owner or the device of a file or directory that its id map cannot
//! hold, or the kernel does not let us make.
//!
//! It lies on the file itself, so that copy-up, renames, hard links and removal come out right by themselves.
//! Its value is text, five words with a blank between them:
//!
//! ```text
//! UID GID DEVICE DISK_UID DISK_GID
//! 33 - - 0 0            owner 33, group as on disk
//! 0 6 b8:0 0 0          a block device 8:0 of 0:6; on disk it is an empty file
//! ```
//!
//! `-` is "as on disk". In a journal, `=` is "as the layers beneath remember it": nobody has set that one. The last two are the owner on disk when it was written: if the file has another one
//! by now, the kernel has changed the owner since, and `UID` or `GID` counts no more.
//!
//! Symbolic links, fifos and sockets can have no such attributes; the handler of a run writes a journal of
//! them ([`Journal`]), one line for each change:
//!
//! ```text
//! INODE SECONDS NANOSECONDS META...
//! ```
//!
//! with inode number and time of birth as seen in the upper, both together because inode numbers come again.
//! Device nodes stand in the journal, too: it is what a payload cannot forge. A line `attributes` says that some
//! file got the attribute, so that a commit has to look for it.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt::{self, Display, Write as _};

use super::owners::{Device, DeviceClass};
use crate::ids::IdMap;

/// The name of the attribute.
pub const NAME: &CStr = c"user.sandbox.meta";

/// Longer than any value that is written.
pub const LONGEST: usize = 96;

/// What is remembered of one file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// The owner inside, if it is not the one on disk.
    pub uid: Option<u32>,
    /// The group inside, if it is not the one on disk.
    pub gid: Option<u32>,
    /// What it is a node of.
    pub device: Option<Device>,
    /// Owner and group on disk when this was written.
    pub on: (u32, u32),
    /// In a journal: whether nobody has set owner and group, so that the layers beneath may know of them.
    pub unset: (bool, bool),
}

impl Meta {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.uid.is_none() && self.gid.is_none() && self.device.is_none()
    }

    /// Whether owner and group were both set.
    pub fn is_whole(&self) -> bool {
        self.unset == (false, false)
    }

    /// The same, with what nobody has set as a layer beneath has it. Whose owner on disk is another one than there was
    /// given to somebody by the kernel, which [`Meta::counted`] sees.
    #[must_use]
    pub fn on_top_of(self, below: Self) -> Self {
        let (no_uid, no_gid) = self.unset;
        Self {
            uid: if no_uid { below.uid } else { self.uid },
            gid: if no_gid { below.gid } else { self.gid },
            device: self.device,
            on: (
                if no_uid { below.on.0 } else { self.on.0 },
                if no_gid { below.on.1 } else { self.on.1 },
            ),
            unset: (no_uid && below.unset.0, no_gid && below.unset.1),
        }
    }

    /// Reads a value; `None` for one that is not of this form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST)?;
        let mut words = text.split(' ');
        let mut word = || words.next();
        let id = |word: &str| match word {
            "-" => Some((None, false)),
            "=" => Some((None, true)),
            digits => number(digits).filter(|id| *id != u32::MAX).map(|id| (Some(id), false)),
        };
        let ((uid, no_uid), (gid, no_gid)) = (id(word()?)?, id(word()?)?);
        let found = Self {
            uid,
            gid,
            unset: (no_uid, no_gid),
            device: match word()? {
                "-" => None,
                text => Some(device(text)?),
            },
            on: (number(word()?)?, number(word()?)?),
        };
        words.next().is_none().then_some(found)
    }

    /// What counts of it for a file that has this owner on disk by now, in a tree with this map: only ids
    /// that the map does not hold. Others can lie on disk, so nobody but a forger writes them here.
    #[must_use]
    pub fn counted(self, on: (u32, u32), map: &IdMap) -> Self {
        Self {
            uid: self.uid.filter(|uid| self.on.0 == on.0 && !map.holds_uid(*uid)),
            gid: self.gid.filter(|gid| self.on.1 == on.1 && !map.holds_gid(*gid)),
            ..self
        }
    }
}

impl Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, unset) in [(self.uid, self.unset.0), (self.gid, self.unset.1)] {
            match id {
                Some(id) => write!(f, "{id} ")?,
                None => f.write_str(if unset { "= " } else { "- " })?,
            }
        }
        match self.device {
            Some(Device { class, major, minor }) => {
                f.write_char(if class == DeviceClass::Block { 'b' } else { 'c' })?;
                write!(f, "{major}:{minor}")?;
            }
            None => f.write_char('-')?,
        }
        write!(f, " {} {}", self.on.0, self.on.1)
    }
}

fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn device(text: &str) -> Option<Device> {
    let (class, rest) = match text.strip_prefix('b') {
        Some(rest) => (DeviceClass::Block, rest),
        None => (DeviceClass::Char, text.strip_prefix('c')?),
    };
    let (major, minor) = rest.split_once(':')?;
    Some(Device { class, major: number(major)?, minor: number(minor)? })
}

/// Which inode: its number and its time of birth, seconds and nanoseconds (0 where the file system has none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub born: (i64, u32),
}

/// The line that says that files have got the attribute.
pub const MARK: &[u8] = b"attributes\n";

/// What the handler of a run has written down, by inode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    entries: HashMap<Inode, Meta>,
    /// Whether files have got the attribute.
    attributes: bool,
}

impl Journal {
    /// Reads a journal: of several lines for one inode the last one counts. What cannot be read is passed
    /// over, for a killed handler may leave half a line.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
        // What follows the last end of a line.
        lines.pop();
        found.attributes = lines.contains(&MARK.trim_ascii());
        found.entries.extend(lines.into_iter().filter_map(line));
        found
    }

    /// What was written down about an inode. Empty is not the same as nothing: then owner and group were
    /// given back to the disk.
    pub fn get(&self, inode: &Inode) -> Option<Meta> {
        self.entries.get(inode).copied()
    }

    /// All that was written down.
    pub fn entries(self) -> impl Iterator<Item = (Inode, Meta)> {
        self.entries.into_iter()
    }

    /// Sets what is known of an inode.
    pub fn set(&mut self, inode: Inode, meta: Meta) {
        self.entries.insert(inode, meta);
    }

    /// Says that files have got the attribute.
    pub fn mark(&mut self) {
        self.attributes = true;
    }

    /// Whether nothing was written down of any inode.
    pub fn has_no_entries(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing was written down.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.attributes
    }

    /// All of it, in the form it is read from.
    pub fn to_text(&self) -> String {
        let mut lines: Vec<_> =
            self.entries.iter().map(|(inode, meta)| journal_line(inode, meta)).collect();
        lines.sort_unstable();
        lines.extend(self.attributes.then(|| String::from_utf8_lossy(MARK).into_owned()));
        lines.concat()
    }
}

/// One line of a journal.
pub fn journal_line(inode: &Inode, meta: &Meta) -> String {
    format!("{} {} {} {meta}\n", inode.number, inode.born.0, inode.born.1)
}

fn line(line: &[u8]) -> Option<(Inode, Meta)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.splitn(4, ' ');
    let number = words.next()?.parse().ok()?;
    let born = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((Inode { number, born }, Meta::parse(words.next()?.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Extent, IdMap, Mode};

    #[test]
    fn values_come_back() {
        let block = Device { class: DeviceClass::Block, major: 8, minor: 1 };
        let char = Device { class: DeviceClass::Char, major: 1, minor: 1_048_575 };
        for (text, meta) in [
            ("33 - - 0 0", Meta { uid: Some(33), ..Meta::default() }),
            ("- 8 - 1 2", Meta { gid: Some(8), on: (1, 2), ..Meta::default() }),
            (
                "0 6 b8:1 0 0",
                Meta { uid: Some(0), gid: Some(6), device: Some(block), ..Meta::default() },
            ),
            ("= 8 - 0 0", Meta { gid: Some(8), unset: (true, false), ..Meta::default() }),
            ("- - c1:1048575 0 0", Meta { device: Some(char), ..Meta::default() }),
        ] {
            assert_eq!(meta.to_string(), text);
            assert_eq!(Meta::parse(text.as_bytes()), Some(meta));
        }
    }

    #[test]
    fn what_is_not_of_this_form_is_nothing() {
        for text in [
            "",
            "33",
            "33 - - 0",
            "33 - - 0 0 0",
            "+33 - - 0 0",
            "-1 - - 0 0",
            "4294967295 - - 0 0",
            "4294967296 - - 0 0",
            "33 -  - 0 0",
            "33 - - 0 0\n",
            "- - x1:1 0 0",
            "- - c1 0 0",
            "- - c1:-1 0 0",
            "- - - a 0",
            "\u{661} - - 0 0",
        ] {
            assert_eq!(Meta::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Meta::parse(&[b'1'; 200]), None);
        assert_eq!(Meta::parse(b"\xff - - 0 0"), None);
    }

    #[test]
    fn only_what_the_disk_cannot_say_counts() {
        let ids = vec![Extent { inside: 0, outside: 1000, count: 100 }];
        let map = IdMap::new(Mode::Subuid, ids.clone(), ids).expect("valid");
        let meta = Meta { uid: Some(5000), gid: Some(7), on: (65, 66), ..Meta::default() };
        assert_eq!(meta.counted((65, 66), &map), Meta { gid: None, ..meta });
        assert!(meta.counted((0, 66), &map).is_empty(), "changed since");
    }

    #[test]
    fn what_nobody_has_set_is_as_it_was_beneath() {
        let below = Meta { uid: Some(33), gid: Some(8), on: (0, 1), ..Meta::default() };
        let half = Meta { gid: Some(9), on: (2, 3), unset: (true, false), ..Meta::default() };
        let both = Meta { uid: Some(33), gid: Some(9), on: (0, 3), ..Meta::default() };
        assert_eq!(half.on_top_of(below), both);
        let taken = Meta { on: (2, 3), ..Meta::default() };
        assert_eq!(taken.on_top_of(below), taken);
        let nothing = Meta { unset: (true, true), ..Meta::default() };
        assert_eq!(nothing.on_top_of(below), below);
    }

    #[test]
    fn the_last_word_on_an_inode_counts() {
        let inode = |number| Inode { number, born: (17, 5) };
        let (one, none) = (Meta { uid: Some(7), ..Meta::default() }, Meta::default());
        let mut text = journal_line(&inode(1), &one);
        text += &journal_line(&inode(2), &one);
        text += "rubbish\n3 1 1\n";
        text += &journal_line(&inode(2), &none);
        text += "4 17 5 7 - - 0";
        let journal = Journal::parse(text.as_bytes());
        assert_eq!(journal.get(&inode(1)), Some(one));
        assert_eq!(journal.get(&inode(2)), Some(none));
        assert_eq!(journal.get(&inode(4)), None);
        assert_eq!(journal.get(&Inode { number: 1, born: (18, 5) }), None);
        assert_eq!(Journal::parse(journal.to_text().as_bytes()), journal);
        assert!(Journal::parse(b"").is_empty());
        assert!(!Journal::parse(MARK).is_empty());
    }
}
