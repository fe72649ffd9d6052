//! How a message names what is read: by its path at the source, which is not its name in the stream.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::os::unix::ffi::OsStrExt;

/// Where a stream comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    path: Vec<u8>,
    /// How much of a name in the stream stands for that path.
    top: usize,
}

impl Source {
    /// What is called `name` in the stream comes from `path`.
    pub(super) fn new(path: &[u8], name: &[u8]) -> Self {
        Self { path: path.to_vec(), top: name.len() }
    }

    /// The path of what is called `at` in the stream, beneath what is written.
    pub(super) fn beneath<'a>(&self, at: &'a [u8]) -> &'a [u8] {
        let rest = at.get(self.top..).unwrap_or_default();
        rest.strip_prefix(b"/").unwrap_or(rest)
    }

    /// The path of what is called `at` in the stream. The text is made where it is printed, as by
    /// [`crate::tree::path::shown`].
    pub(super) fn shown<'a>(&'a self, at: &'a [u8]) -> Shown<'a> {
        Shown { path: &self.path, rest: at.get(self.top..).unwrap_or_default() }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    path: &'a [u8],
    rest: &'a [u8],
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, rest) = (OsStr::from_bytes(self.path), OsStr::from_bytes(self.rest));
        let whole = self.rest.is_empty() && !self.path.is_empty();
        let slash = if whole || self.rest.starts_with(b"/") { "" } else { "/" };
        write!(f, "{}{slash}{}", path.display(), rest.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_that_of_the_source() {
        for (path, name, at, shown) in [
            ("/proc/1/environ", "e", "e", "/proc/1/environ"),
            ("/srv/d", "new", "new/a/b", "/srv/d/a/b"),
            ("/srv/d", "", "a/b", "/srv/d/a/b"),
            ("", "", "a", "/a"),
            ("", "", "", "/"),
            (".", "", "a", "./a"),
        ] {
            let source = Source::new(path.as_bytes(), name.as_bytes());
            assert_eq!(source.shown(at.as_bytes()).to_string(), shown);
        }
    }
}
