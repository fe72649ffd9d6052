//! What takes space in a store. Of an entry, what is ours is measured here, by lstat(2); the places whose
//! content is not ours are handed out, for whoever may look into them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::{Store, file, layout, trash};
use crate::fault::{Context, Result};
use crate::tree::usage::on_disk;

/// An entry of the store.
#[derive(Debug, Default)]
pub struct Part {
    /// The bytes on disk of what is ours.
    pub own: u64,
    /// Directories whose content is not ours, as places (`O_PATH`), to be measured with themselves.
    pub foreign: Vec<OwnedFd>,
}

impl Store {
    /// Measures what lies at a path, with all beneath. What vanishes meanwhile counts nothing.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn part(&self, path: &str) -> Result<Part> {
        let mut part = Part::default();
        add(self.dir(), path, "", &foreign(path), &mut part).context("measure", self.show(path))?;
        Ok(part)
    }

    /// What lies in a directory of the store, as paths.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn parts(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.names(folder)?.iter().map(|name| format!("{folder}/{name}")).collect())
    }

    /// The bytes on disk of the directories of the store themselves and of what lies in none of those that
    /// [`Store::parts`] is for.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn frame(&self) -> Result<u64> {
        let alone = |path: &str| {
            let stat = statat(self.dir(), path, AtFlags::SYMLINK_NOFOLLOW);
            stat.map(|stat| on_disk(&stat)).context("look at", self.show(path))
        };
        let mut bytes = alone(".")?;
        for name in self.names(".")? {
            bytes += match name.as_str() {
                layout::LAYERS | layout::RUNS | layout::TRASH | layout::CACHE => alone(&name)?,
                _ => self.part(&name)?.own,
            };
        }
        Ok(bytes)
    }
}

/// Which paths in an entry of the store are not ours.
fn foreign(path: &str) -> impl Fn(&str) -> bool + use<> {
    let mut parts = path.splitn(3, '/');
    let (folder, entry) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let fixed: &'static [&'static str] = match folder {
        layout::LAYERS => &["fs"],
        layout::RUNS => &layout::FOREIGN_IN_RUN,
        layout::TRASH => trash::foreign_names(entry),
        layout::CACHE if entry.starts_with(layout::CACHES) => &["*/fs"],
        layout::CACHE => &["."],
        _ => &[],
    };
    move |inner: &str| {
        let is = |pattern: &&str| match pattern.strip_prefix("*/") {
            Some(last) => inner.split_once('/').is_some_and(|(_, rest)| rest == last),
            None => inner == *pattern || (*pattern == "." && inner.is_empty()),
        };
        fixed.iter().any(is)
    }
}

/// Adds `name` of `dir`, which lies at `inner` within the entry. Directories of ours are not deep.
fn add(
    dir: BorrowedFd<'_>,
    name: &str,
    inner: &str,
    foreign: &impl Fn(&str) -> bool,
    part: &mut Part,
) -> Result<(), Errno> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        part.own += on_disk(&stat);
        return Ok(());
    }
    let opened = match foreign(inner) {
        true => file::open_place(dir, name).map(|place| part.foreign.push(place)),
        false => file::open_dir(dir, name).and_then(|child| {
            part.own += on_disk(&stat);
            for name in file::names(child.as_fd())? {
                let inner = if inner.is_empty() { name.clone() } else { format!("{inner}/{name}") };
                add(child.as_fd(), &name, &inner, foreign, part)?;
            }
            Ok(())
        }),
    };
    match opened {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
