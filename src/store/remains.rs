//! A directory that is no store: whether it may become one, and what is said of it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::{file, layout};
use crate::fault::{Context, Fault, Result, quoted};

/// A directory in which there is something that is no store's does not become one.
pub(super) fn refuse_strange(present: &[String], shown: &str) -> Result<()> {
    let Some(strange) = strange(present) else { return Ok(()) };
    Err(Fault::conflict(format!("create store: {shown}: holds something else already ({strange})"))
        .hint("choose an empty or a new directory with --base-dir"))
}

/// A name that is no store's.
fn strange(present: &[String]) -> Option<String> {
    let known = |name: &&String| {
        *name == layout::LOCK
            || *name == "lost+found"
            || name.starts_with(layout::UNFINISHED)
            || layout::FOLDERS.contains(&name.as_str())
    };
    Some(present.iter().find(|name| !known(name))?.escape_default().to_string())
}

/// A directory that holds what only a finished store has was one, and has lost its format: nothing is made of it that could
/// hide, or take away, what is there. (Who is interrupted while making a store leaves empty directories.)
pub(super) fn refuse_remains(dir: &OwnedFd, shown: &str) -> Result<()> {
    for folder in layout::FOLDERS {
        let names = match file::open_dir(dir.as_fd(), folder) {
            Err(Errno::NOENT) => continue,
            opened => opened.and_then(|folder| file::names(folder.as_fd())),
        };
        if !names.context("read directory", format_args!("{shown}/{folder}"))?.is_empty() {
            return Err(Fault::damaged(format!(
                "open store: {shown}: format.json is missing, and {folder} is not empty"
            ))
            .hint(format!(
                "if this sandbox wrote it: `echo '{{\"format\":1}}' >{}`, then `sandbox fsck`; \
                 for a new store choose another directory with --base-dir",
                quoted(&format!("{shown}/{}", layout::FORMAT))
            )));
        }
    }
    Ok(())
}

/// What a directory without a format is.
pub(super) fn no_format(dir: &OwnedFd, shown: &str) -> Result<Fault> {
    let dir = file::open_dir(dir.as_fd(), ".").context("open directory", shown)?;
    let present = file::names(dir.as_fd()).context("read directory", shown)?;
    if let Some(strange) = strange(&present) {
        return Ok(Fault::not_found(format!(
            "open store: {shown}: it is none, and holds something else ({strange})"
        ))
        .hint(
            "choose the directory of a store, or for a new one an empty directory, with --base-dir",
        ));
    }
    refuse_remains(&dir, shown)?;
    Ok(no_store(shown))
}

pub(super) fn no_store(shown: &str) -> Fault {
    Fault::not_found(format!("open store: {shown}: there is none yet"))
        .hint("fill a box first: `sandbox init --from SOURCE`")
}
