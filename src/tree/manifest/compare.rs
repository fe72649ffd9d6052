//! A tree against its manifest: every path that is missing, extra or changed.

use std::collections::HashSet;
use std::iter::Peekable;
use std::os::fd::BorrowedFd;
use std::vec::IntoIter;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Line, Seen, order, scan};
use crate::fault::{Result, why};
use crate::tree::path;

/// How a path differs from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is not there.
    Missing,
    /// It was not there.
    Extra,
    /// Its type, content, size or target.
    Content,
    /// Its mode, owner, time, attributes or links, and not its content.
    Metadata,
}

/// A path that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Beneath the root of the layer, without a leading `/`.
    #[serde(flatten, with = "path")]
    pub path: Vec<u8>,
    /// How it differs.
    pub how: How,
    /// The same in words.
    pub detail: String,
}

impl Difference {
    /// What the disk cannot read.
    pub(super) fn unread(path: Vec<u8>, errno: Errno) -> Self {
        Self { path, how: How::Content, detail: format!("cannot be read: {}", why(errno)) }
    }
}

/// Compares the tree `fs`, of which every file is read, with what it was.
///
/// # Errors
/// What the system says, naming the path. What the disk cannot read is a difference, and what lies beneath is of it.
pub fn compare(fs: BorrowedFd<'_>, lines: Vec<Line>) -> Result<Vec<Difference>> {
    let mut merge = Merge {
        expected: lines.into_iter().peekable(),
        found: Vec::new(),
        changed: HashSet::new(),
    };
    scan(fs, &mut |seen| {
        match seen {
            Seen::Entry(line) => merge.entry(&line),
            Seen::Unread(path, errno) => merge.unread(path, errno),
        }
        Ok(())
    })?;
    while let Some(line) = merge.expected.next() {
        merge.tell(line.path, How::Missing, "is missing".into());
    }
    Ok(merge.found)
}

struct Merge {
    expected: Peekable<IntoIter<Line>>,
    found: Vec<Difference>,
    /// Paths whose content changed, and with it that of their other names.
    changed: HashSet<String>,
}

impl Merge {
    /// What was expected before this path is not there.
    fn before(&mut self, path: &[u8]) {
        while let Some(missing) =
            self.expected.next_if(|expected| order(&expected.path, path).is_lt())
        {
            self.tell(missing.path, How::Missing, "is missing".into());
        }
    }

    fn unread(&mut self, path: Vec<u8>, errno: Errno) {
        self.before(&path);
        while self.expected.next_if(|expected| lies_in(&expected.path, &path)).is_some() {}
        self.changed.insert(String::from_utf8_lossy(&path).into_owned());
        self.found.push(Difference::unread(path, errno));
    }

    fn entry(&mut self, line: &Line) {
        self.before(&line.path);
        let Some(expected) = self.expected.next_if(|expected| expected.path == line.path) else {
            return self.tell(line.path.clone(), How::Extra, "was not there".into());
        };
        let mut content = content(&expected, line);
        if line.link.as_ref().is_some_and(|first| self.changed.contains(first)) {
            content = Some("content changed".into());
        }
        let metadata = metadata(&expected, line);
        match (content, metadata) {
            (None, None) => {}
            (Some(content), metadata) => {
                self.changed.insert(String::from_utf8_lossy(&line.path).into_owned());
                let rest = metadata.map(|what| format!(", {what}")).unwrap_or_default();
                self.tell(expected.path, How::Content, format!("{content}{rest}"));
            }
            (None, Some(metadata)) => self.tell(expected.path, How::Metadata, metadata),
        }
    }

    fn tell(&mut self, path: Vec<u8>, how: How, detail: String) {
        self.found.push(Difference { path, how, detail });
    }
}

/// Whether a path is this one or lies beneath it.
fn lies_in(path: &[u8], above: &[u8]) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => above.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

fn content(expected: &Line, line: &Line) -> Option<String> {
    if expected.class != line.class {
        return Some(format!("type was {:?}, is {:?}", expected.class, line.class).to_lowercase());
    }
    if expected.device != line.device {
        return Some("device numbers changed".into());
    }
    if expected.target != line.target {
        return Some("target changed".into());
    }
    // Of two names that were one file, or are one now, the digest is known of the first only.
    if expected.link.is_some() || line.link.is_some() {
        return None;
    }
    if let (Some(old), Some(new)) = (expected.size, line.size)
        && old != new
    {
        return Some(format!("size was {old}, is {new}"));
    }
    (expected.sha256 != line.sha256).then(|| "content changed".into())
}

fn metadata(expected: &Line, line: &Line) -> Option<String> {
    let mut parts = Vec::new();
    if expected.mode != line.mode {
        parts.push(format!("mode was {:04o}, is {:04o}", expected.mode, line.mode));
    }
    if (expected.uid, expected.gid) != (line.uid, line.gid) {
        let (old, new) = ((expected.uid, expected.gid), (line.uid, line.gid));
        parts.push(format!("owner was {}:{}, is {}:{}", old.0, old.1, new.0, new.1));
    }
    if (expected.mtime, expected.nsec) != (line.mtime, line.nsec) {
        parts.push("time of modification changed".into());
    }
    if expected.xattrs != line.xattrs && line.link.is_none() {
        let names = expected.xattrs.keys().chain(line.xattrs.keys());
        let mut changed: Vec<_> = names
            .filter(|name| expected.xattrs.get(*name) != line.xattrs.get(*name))
            .map(String::as_str)
            .collect();
        changed.sort_unstable();
        changed.dedup();
        parts.push(format!("attributes changed: {}", changed.join(" ")));
    }
    if expected.link != line.link {
        parts.push("hard links changed".into());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
